"""Statistical shape models of vertebrae: sampling, fits, conditioning, annotations."""

import importlib
from typing import TYPE_CHECKING, Any

from dartjax.ssm._annotate import Annotation as Annotation
from dartjax.ssm._annotate import annotate as annotate
from dartjax.ssm._annotate import attach as attach
from dartjax.ssm._field_fit import fit_distance_field as fit_distance_field
from dartjax.ssm._fracture import FRACTURE_NAMES as FRACTURE_NAMES
from dartjax.ssm._fracture import fracture_fields as fracture_fields
from dartjax.ssm._fracture import fracture_log_prior as fracture_log_prior
from dartjax.ssm._fracture import fractured as fractured
from dartjax.ssm._fracture import losses_from as losses_from
from dartjax.ssm._fracture import with_fracture_modes as with_fracture_modes
from dartjax.ssm._frame import align_to_mirror_plane as align_to_mirror_plane
from dartjax.ssm._frame import midline_areas as midline_areas
from dartjax.ssm._frame import to_vertebra_frame as to_vertebra_frame
from dartjax.ssm._frame import vertebra_frame as vertebra_frame
from dartjax.ssm._model import BACKUP_LANDMARK_NAMES as BACKUP_LANDMARK_NAMES
from dartjax.ssm._model import PART_NAMES as PART_NAMES
from dartjax.ssm._model import CarriedPoints as CarriedPoints
from dartjax.ssm._model import ShapeModel as ShapeModel
from dartjax.ssm._model import backup_landmarks as backup_landmarks
from dartjax.ssm._model import carried as carried
from dartjax.ssm._model import instance as instance
from dartjax.ssm._model import landmarks as landmarks
from dartjax.ssm._model import log_prior as log_prior
from dartjax.ssm._model import log_size as log_size
from dartjax.ssm._model import paths as paths
from dartjax.ssm._model import posed as posed
from dartjax.ssm._model import project as project
from dartjax.ssm._model import sample as sample
from dartjax.ssm._model import truncate as truncate
from dartjax.ssm._pedicle import Isthmus as Isthmus
from dartjax.ssm._pedicle import corridor_radius as corridor_radius
from dartjax.ssm._pedicle import isthmus as isthmus
from dartjax.ssm._posterior import posterior as posterior
from dartjax.ssm._posterior import posterior_from_surface as posterior_from_surface
from dartjax.ssm._posterior import vertex_points as vertex_points
from dartjax.ssm._spine_prior import KEYPOINTS as KEYPOINTS
from dartjax.ssm._spine_prior import SPINE_LEVELS as SPINE_LEVELS
from dartjax.ssm._spine_prior import ExpectedFrame as ExpectedFrame
from dartjax.ssm._spine_prior import SpineEstimate as SpineEstimate
from dartjax.ssm._spine_prior import SpinePrior as SpinePrior
from dartjax.ssm._spine_prior import condition_spine as condition_spine
from dartjax.ssm._spine_prior import expected_frames as expected_frames
from dartjax.ssm._spine_prior import frame_in_vertebra as frame_in_vertebra
from dartjax.ssm._spine_prior import frames_from_others as frames_from_others
from dartjax.ssm._spine_prior import num_spine_values as num_spine_values
from dartjax.ssm._spine_prior import pedicle_frame as pedicle_frame
from dartjax.ssm._spine_prior import spine_frames as spine_frames
from dartjax.ssm._spine_prior import spine_log_likelihood as spine_log_likelihood
from dartjax.ssm._spine_prior import spine_places as spine_places
from dartjax.ssm._spine_prior import spine_sample as spine_sample
from dartjax.ssm._spine_prior import spine_sizes as spine_sizes
from dartjax.ssm._spine_prior import spine_values as spine_values
from dartjax.ssm._surface_fit import Registration as Registration
from dartjax.ssm._surface_fit import fit_modes as fit_modes
from dartjax.ssm._surface_fit import fit_surface as fit_surface
from dartjax.ssm._surface_fit import register_surface as register_surface
from dartjax.ssm._surface_fit import sample_surface as sample_surface
from dartjax.ssm._surface_fit import surface_samples as surface_samples

_MOVED_TO_BUILD = (
    "LENGTHS",
    "MEASURES",
    "PRIOR_KERNELS",
    "REGISTRATION_KERNELS",
    "Caliper",
    "Correspondence",
    "Kernel",
    "Recipe",
    "RegionModel",
    "Shape",
    "Target",
    "Template",
    "Topology",
    "annotated_model",
    "build_region",
    "build_template",
    "correspond",
    "dense_landmarks",
    "level_means",
    "measure",
    "rigidly_onto",
    "self_intersections",
    "smooth_modes",
    "triangle_quality",
)


if not TYPE_CHECKING:  # hidden from type checkers, which else accept any name

    def __getattr__(name: str) -> Any:
        """Resolve names of version 0.1 that are now in `ssm.build`. They are not imported above
        because `ssm.build` imports this package."""
        if name not in _MOVED_TO_BUILD:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module("dartjax.ssm.build"), name)
