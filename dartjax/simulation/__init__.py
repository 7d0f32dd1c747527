"""Simulated scenes with ground truth: vertebrae of a CT, C-arm views, noise models of detectors,
robot operations."""

from dartjax.simulation._base_placement import BasePlanner as BasePlanner
from dartjax.simulation._base_placement import DisplacedReach as DisplacedReach
from dartjax.simulation._base_placement import PathReach as PathReach
from dartjax.simulation._base_placement import reach_when_displaced as reach_when_displaced
from dartjax.simulation._carm import CarmSetup as CarmSetup
from dartjax.simulation._carm import ap_and_lateral as ap_and_lateral
from dartjax.simulation._carm import carm_view as carm_view
from dartjax.simulation._carm import middle_of as middle_of
from dartjax.simulation._carm import pair_angles_deg as pair_angles_deg
from dartjax.simulation._carm import random_views as random_views
from dartjax.simulation._carm import seen_at_once as seen_at_once
from dartjax.simulation._carm import simulate as simulate
from dartjax.simulation._damping_search import DAMPING_FAMILIES as DAMPING_FAMILIES
from dartjax.simulation._damping_search import DampingSearch as DampingSearch
from dartjax.simulation._damping_search import damping_baselines as damping_baselines
from dartjax.simulation._damping_search import damping_law_numbers as damping_law_numbers
from dartjax.simulation._damping_search import damping_law_of as damping_law_of
from dartjax.simulation._damping_search import damping_search_step as damping_search_step
from dartjax.simulation._damping_search import start_damping_search as start_damping_search
from dartjax.simulation._damping_search import stored_damping_law as stored_damping_law
from dartjax.simulation._detections import DETECTORS as DETECTORS
from dartjax.simulation._detections import detect as detect
from dartjax.simulation._detector_noise import STRESS as STRESS
from dartjax.simulation._detector_noise import Detector as Detector
from dartjax.simulation._detector_noise import detect_landmarks as detect_landmarks
from dartjax.simulation._detector_noise import detect_mask as detect_mask
from dartjax.simulation._detector_noise import is_lateral as is_lateral
from dartjax.simulation._disturbed import Disturbance as Disturbance
from dartjax.simulation._disturbed import disturbed_mask as disturbed_mask
from dartjax.simulation._disturbed import disturbed_observations as disturbed_observations
from dartjax.simulation._disturbed import disturbed_pose as disturbed_pose
from dartjax.simulation._ground_truth import TrueVertebra as TrueVertebra
from dartjax.simulation._ground_truth import isolated as isolated
from dartjax.simulation._ground_truth import true_masks as true_masks
from dartjax.simulation._ground_truth import true_vertebra as true_vertebra
from dartjax.simulation._hand_motions import FIXED_HIGH_DAMPING as FIXED_HIGH_DAMPING
from dartjax.simulation._hand_motions import FIXED_LOW_DAMPING as FIXED_LOW_DAMPING
from dartjax.simulation._hand_motions import HAND_MOTION_KINDS as HAND_MOTION_KINDS
from dartjax.simulation._hand_motions import DampingControllers as DampingControllers
from dartjax.simulation._hand_motions import HandMotions as HandMotions
from dartjax.simulation._hand_motions import came_to_rest as came_to_rest
from dartjax.simulation._hand_motions import damping_controllers as damping_controllers
from dartjax.simulation._hand_motions import motion_below_threshold as motion_below_threshold
from dartjax.simulation._hand_motions import random_hand_motions as random_hand_motions
from dartjax.simulation._hand_motions import simulate_drags as simulate_drags
from dartjax.simulation._hybrid_calibration import (
    CALIBRATION_WAYPOINTS_MM as CALIBRATION_WAYPOINTS_MM,
)
from dartjax.simulation._hybrid_calibration import DRIVE_MODELS as DRIVE_MODELS
from dartjax.simulation._hybrid_calibration import DriveErrors as DriveErrors
from dartjax.simulation._hybrid_calibration import (
    calibration_identifiability as calibration_identifiability,
)
from dartjax.simulation._hybrid_calibration import calibration_plan as calibration_plan
from dartjax.simulation._hybrid_calibration import ideal_leg_lengths as ideal_leg_lengths
from dartjax.simulation._hybrid_calibration import simulate_drive_errors as simulate_drive_errors
from dartjax.simulation._planned_patient import (
    ROBOT_WORKSPACE_CENTER_MM as ROBOT_WORKSPACE_CENTER_MM,
)
from dartjax.simulation._planned_patient import PlannedPatient as PlannedPatient
from dartjax.simulation._planned_patient import mean_shape_patient as mean_shape_patient
from dartjax.simulation._planned_patient import prone_placement as prone_placement
from dartjax.simulation._planned_patient import read_planned_patient as read_planned_patient
from dartjax.simulation._planned_patient import torso_distance as torso_distance
from dartjax.simulation._robot_accuracy import ReachMap as ReachMap
from dartjax.simulation._robot_accuracy import guide_round_trips as guide_round_trips
from dartjax.simulation._robot_accuracy import hybrid_reach_map as hybrid_reach_map
from dartjax.simulation._robot_accuracy import (
    hybrid_round_trip_float32 as hybrid_round_trip_float32,
)
from dartjax.simulation._robot_accuracy import hybrid_round_trips as hybrid_round_trips
from dartjax.simulation._surroundings import Surroundings as Surroundings
from dartjax.simulation._surroundings import scene_volume as scene_volume
from dartjax.simulation._tool_weight import COMPENSATION_METHODS as COMPENSATION_METHODS
from dartjax.simulation._tool_weight import COMPENSATION_TH5_DEG as COMPENSATION_TH5_DEG
from dartjax.simulation._tool_weight import COMPENSATION_THX_DEG as COMPENSATION_THX_DEG
from dartjax.simulation._tool_weight import compensation_residuals as compensation_residuals
from dartjax.simulation._true_vertebrae import excluded as excluded
from dartjax.simulation._true_vertebrae import is_leak as is_leak
from dartjax.simulation._true_vertebrae import people_of as people_of
from dartjax.simulation._true_vertebrae import true_vertebrae as true_vertebrae
from dartjax.simulation.distal import EDGE_NOISE_PX as EDGE_NOISE_PX
from dartjax.simulation.distal import NAIL_POSE_ESTIMATORS as NAIL_POSE_ESTIMATORS
from dartjax.simulation.distal import CalibratedCarm as CalibratedCarm
from dartjax.simulation.distal import Detections as Detections
from dartjax.simulation.distal import DistalLockingResults as DistalLockingResults
from dartjax.simulation.distal import anatomy_backgrounds as anatomy_backgrounds
from dartjax.simulation.distal import ball_detection_rate as ball_detection_rate
from dartjax.simulation.distal import ball_detector_rows as ball_detector_rows
from dartjax.simulation.distal import calibrated_carm as calibrated_carm
from dartjax.simulation.distal import calibration_row as calibration_row
from dartjax.simulation.distal import compare_guide_pose_estimators as compare_guide_pose_estimators
from dartjax.simulation.distal import detect_guide_and_nail as detect_guide_and_nail
from dartjax.simulation.distal import detected_guide_points as detected_guide_points
from dartjax.simulation.distal import distal_locking_operation as distal_locking_operation
from dartjax.simulation.distal import distal_locking_summary as distal_locking_summary
from dartjax.simulation.distal import false_detections as false_detections
from dartjax.simulation.distal import fronto_parallel_nails as fronto_parallel_nails
from dartjax.simulation.distal import guide_pose_rate as guide_pose_rate
from dartjax.simulation.distal import guide_pose_sensitivity as guide_pose_sensitivity
from dartjax.simulation.distal import nail_pose_sensitivity as nail_pose_sensitivity
from dartjax.simulation.distal import opencv_homography_gap_px as opencv_homography_gap_px
from dartjax.simulation.distal import opencv_is_installed as opencv_is_installed
from dartjax.simulation.distal import operation_statistics as operation_statistics
from dartjax.simulation.distal import operations_of as operations_of
from dartjax.simulation.distal import random_guide_points as random_guide_points
from dartjax.simulation.distal import reference_pose_spread as reference_pose_spread
from dartjax.simulation.navigation import LOOP_TOLERANCE_MM as LOOP_TOLERANCE_MM
from dartjax.simulation.navigation import WIRE_CHECK_VIEWS as WIRE_CHECK_VIEWS
from dartjax.simulation.navigation import WireCheck as WireCheck
from dartjax.simulation.navigation import WireNavigation as WireNavigation
from dartjax.simulation.navigation import WirePlacement as WirePlacement
from dartjax.simulation.navigation import closed_loop_statistics as closed_loop_statistics
from dartjax.simulation.navigation import closed_loop_study as closed_loop_study
from dartjax.simulation.navigation import navigate_wires as navigate_wires
from dartjax.simulation.navigation import wire_navigation_summary as wire_navigation_summary
