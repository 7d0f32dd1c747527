"""Distal locking in simulated scenes, against ground truth: detection, poses, whole operations."""

from dartjax.simulation.distal._detection import Detections as Detections
from dartjax.simulation.distal._detection import ball_detection_rate as ball_detection_rate
from dartjax.simulation.distal._detection import ball_detector_rows as ball_detector_rows
from dartjax.simulation.distal._detection import detect_guide_and_nail as detect_guide_and_nail
from dartjax.simulation.distal._detection import false_detections as false_detections
from dartjax.simulation.distal._detection import fronto_parallel_nails as fronto_parallel_nails
from dartjax.simulation.distal._opencv import (
    opencv_homography_gap_px as opencv_homography_gap_px,
)
from dartjax.simulation.distal._opencv import opencv_is_installed as opencv_is_installed
from dartjax.simulation.distal._operation import NAIL_POSE_ESTIMATORS as NAIL_POSE_ESTIMATORS
from dartjax.simulation.distal._operation import (
    distal_locking_operation as distal_locking_operation,
)
from dartjax.simulation.distal._operation import reference_pose_spread as reference_pose_spread
from dartjax.simulation.distal._pose_study import EDGE_NOISE_PX as EDGE_NOISE_PX
from dartjax.simulation.distal._pose_study import (
    compare_guide_pose_estimators as compare_guide_pose_estimators,
)
from dartjax.simulation.distal._pose_study import detected_guide_points as detected_guide_points
from dartjax.simulation.distal._pose_study import guide_pose_rate as guide_pose_rate
from dartjax.simulation.distal._pose_study import guide_pose_sensitivity as guide_pose_sensitivity
from dartjax.simulation.distal._pose_study import nail_pose_sensitivity as nail_pose_sensitivity
from dartjax.simulation.distal._pose_study import random_guide_points as random_guide_points
from dartjax.simulation.distal._scene import CalibratedCarm as CalibratedCarm
from dartjax.simulation.distal._scene import anatomy_backgrounds as anatomy_backgrounds
from dartjax.simulation.distal._scene import calibrated_carm as calibrated_carm
from dartjax.simulation.distal._scene import calibration_row as calibration_row
from dartjax.simulation.distal._summary import DistalLockingResults as DistalLockingResults
from dartjax.simulation.distal._summary import distal_locking_summary as distal_locking_summary
from dartjax.simulation.distal._summary import operation_statistics as operation_statistics
from dartjax.simulation.distal._summary import operations_of as operations_of
