"""Host-side reading and writing: images, meshes, cohorts, assets.

Whatever a user gives wrongly raises `DataError` with one message that says what, where and
what to do.
"""

from ._assets import SUPERNUMERARY as SUPERNUMERARY
from ._assets import as_stored as as_stored
from ._assets import includes_subject as includes_subject
from ._assets import load_shape_model as load_shape_model
from ._assets import load_template as load_template
from ._assets import same_subject as same_subject
from ._assets import save_shape_models as save_shape_models
from ._assets import save_template as save_template
from ._assets import shape_model_card as shape_model_card
from ._assets import shape_model_levels as shape_model_levels
from ._assets import shape_model_set as shape_model_set
from ._cameras import InitialGuess as InitialGuess
from ._cameras import load_cameras as load_cameras
from ._cameras import load_init as load_init
from ._case import Case as Case
from ._case import content_hash as content_hash
from ._case import ids_hash as ids_hash
from ._case import patient_of as patient_of
from ._errors import DataError as DataError
from ._errors import OfflineError as OfflineError
from ._example import EXAMPLE_SUBJECT as EXAMPLE_SUBJECT
from ._example import cache_folder as cache_folder
from ._example import example_case as example_case
from ._example import example_folder as example_folder
from ._example import example_is_cached as example_is_cached
from ._levels import LABEL_OF_LEVEL as LABEL_OF_LEVEL
from ._levels import LEVEL_OF_LABEL as LEVEL_OF_LABEL
from ._levels import MODELLED_LEVELS as MODELLED_LEVELS
from ._levels import REGIONS as REGIONS
from ._levels import label_of as label_of
from ._levels import level_of as level_of
from ._levels import parse_levels as parse_levels
from ._levels import region_of as region_of
from ._meshes import load_mesh as load_mesh
from ._meshes import load_meshes as load_meshes
from ._meshes import save_ply as save_ply
from ._morphometry import Published as Published
from ._morphometry import plausible_range as plausible_range
from ._morphometry import published as published
from ._nifti import hu_to_attenuation as hu_to_attenuation
from ._nifti import load_ct as load_ct
from ._nifti import load_labels as load_labels
from ._radiographs import Kind as Kind
from ._radiographs import load_radiograph as load_radiograph
from ._radiographs import load_radiographs as load_radiographs
from ._synthetic import synthetic_case as synthetic_case
from ._training import Rejected as Rejected
from ._training import ShapeSource as ShapeSource
from ._training import TrainingShape as TrainingShape
from ._training import find_shapes as find_shapes
from ._training import load_shapes as load_shapes
from ._truth import grid_around as grid_around
from ._truth import solid_of as solid_of
from ._truth import surface_of as surface_of
from ._verse import Subject as Subject
from ._verse import find_subjects as find_subjects
from ._verse import judge_levels as judge_levels
from ._verse import load_case as load_case
from ._views import angle_between as angle_between
from ._views import check_views as check_views
