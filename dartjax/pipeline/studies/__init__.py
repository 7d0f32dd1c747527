"""Studies of the reconstruction pipeline: failure detection and recovery, robustness, fractures,
learned similarity, and the shape oracle (the best fit of a shape model)."""

from dartjax.pipeline.studies._detection import DetectorRows as DetectorRows
from dartjax.pipeline.studies._detection import LabelledVertebrae as LabelledVertebrae
from dartjax.pipeline.studies._detection import PictureOfView as PictureOfView
from dartjax.pipeline.studies._detection import ViewTruth as ViewTruth
from dartjax.pipeline.studies._detection import detector_rows as detector_rows
from dartjax.pipeline.studies._detection import detector_summary as detector_summary
from dartjax.pipeline.studies._detection import evaluate_detector as evaluate_detector
from dartjax.pipeline.studies._detection import joined_rows as joined_rows
from dartjax.pipeline.studies._detection import labelled_vertebrae as labelled_vertebrae
from dartjax.pipeline.studies._detection import landmark_errors as landmark_errors
from dartjax.pipeline.studies._detection import view_truth as view_truth
from dartjax.pipeline.studies._failure_fit import (
    cross_validate_failure_model as cross_validate_failure_model,
)
from dartjax.pipeline.studies._failure_fit import (
    fit_calibrated_failure_model as fit_calibrated_failure_model,
)
from dartjax.pipeline.studies._fractures import BODY_PLACES as BODY_PLACES
from dartjax.pipeline.studies._fractures import MODES_OFF as MODES_OFF
from dartjax.pipeline.studies._fractures import MODES_ON as MODES_ON
from dartjax.pipeline.studies._fractures import OCCUPANCY_SPACING_MM as OCCUPANCY_SPACING_MM
from dartjax.pipeline.studies._fractures import FractureAnswer as FractureAnswer
from dartjax.pipeline.studies._fractures import fit_fractures as fit_fractures
from dartjax.pipeline.studies._fractures import fracture_cases as fracture_cases
from dartjax.pipeline.studies._fractures import fracture_tasks as fracture_tasks
from dartjax.pipeline.studies._fractures import vertebra_occupancy as vertebra_occupancy
from dartjax.pipeline.studies._learning_metrics import CAPTURED_MM as CAPTURED_MM
from dartjax.pipeline.studies._learning_metrics import LEARNED_SIMILARITY as LEARNED_SIMILARITY
from dartjax.pipeline.studies._learning_metrics import evaluate_captures as evaluate_captures
from dartjax.pipeline.studies._learning_metrics import (
    evaluate_one_shot_starts as evaluate_one_shot_starts,
)
from dartjax.pipeline.studies._learning_metrics import evaluate_predictions as evaluate_predictions
from dartjax.pipeline.studies._learning_metrics import similarity_cases as similarity_cases
from dartjax.pipeline.studies._real_radiographs import body_box_rows as body_box_rows
from dartjax.pipeline.studies._real_radiographs import body_box_summary as body_box_summary
from dartjax.pipeline.studies._real_radiographs import drawn_boxes as drawn_boxes
from dartjax.pipeline.studies._real_radiographs import (
    radiograph_without_camera as radiograph_without_camera,
)
from dartjax.pipeline.studies._real_radiographs import real_radiographs as real_radiographs
from dartjax.pipeline.studies._repair import Repair as Repair
from dartjax.pipeline.studies._repair import try_repairs as try_repairs
from dartjax.pipeline.studies._robustness import fit_robustness_scenes as fit_robustness_scenes
from dartjax.pipeline.studies._robustness import only_levels as only_levels
from dartjax.pipeline.studies._robustness import start_robustness_scenes as start_robustness_scenes
from dartjax.pipeline.studies._robustness_scenes import AS_GIVEN as AS_GIVEN
from dartjax.pipeline.studies._robustness_scenes import CAMERA_CURVES as CAMERA_CURVES
from dartjax.pipeline.studies._robustness_scenes import REFINED as REFINED
from dartjax.pipeline.studies._robustness_scenes import ROBUSTNESS_VALUES as ROBUSTNESS_VALUES
from dartjax.pipeline.studies._robustness_scenes import RobustnessScene as RobustnessScene
from dartjax.pipeline.studies._robustness_scenes import robustness_scenes as robustness_scenes
from dartjax.pipeline.studies._shape_oracle import ORACLE_METRICS as ORACLE_METRICS
from dartjax.pipeline.studies._shape_oracle import fit_shape_oracle as fit_shape_oracle
from dartjax.pipeline.studies._shape_oracle import shape_oracle_summary as shape_oracle_summary
from dartjax.pipeline.studies._stress import CameraMisplacement as CameraMisplacement
from dartjax.pipeline.studies._stress import FailureTrials as FailureTrials
from dartjax.pipeline.studies._stress import collect_failure_trials as collect_failure_trials
from dartjax.pipeline.studies._stress import join_failure_trials as join_failure_trials
from dartjax.pipeline.studies._stress import load_failure_trials as load_failure_trials
from dartjax.pipeline.studies._stress import save_failure_trials as save_failure_trials
