"""Read and write images, meshes, cohorts of scans and packaged assets, on the host.

Bad input raises `DataError`; its message says what is wrong, where, and what to do.
"""

import importlib
from typing import TYPE_CHECKING, Any

from dartjax._errors import DataError as DataError
from dartjax._errors import OfflineError as OfflineError
from dartjax.anatomy import LABEL_OF_LEVEL as LABEL_OF_LEVEL
from dartjax.anatomy import LEVEL_OF_LABEL as LEVEL_OF_LABEL
from dartjax.anatomy import MODELLED_LEVELS as MODELLED_LEVELS
from dartjax.anatomy import NUMBERINGS as NUMBERINGS
from dartjax.anatomy import REGIONS as REGIONS
from dartjax.anatomy import Numbering as Numbering
from dartjax.anatomy import label_of as label_of
from dartjax.anatomy import level_of as level_of
from dartjax.anatomy import parse_levels as parse_levels
from dartjax.anatomy import region_of as region_of
from dartjax.data._atomic import MANIFEST as MANIFEST
from dartjax.data._atomic import finish_shard as finish_shard
from dartjax.data._atomic import json_bytes as json_bytes
from dartjax.data._atomic import only_writer as only_writer
from dartjax.data._atomic import parse_shard as parse_shard
from dartjax.data._atomic import publish_arrays as publish_arrays
from dartjax.data._atomic import publish_file as publish_file
from dartjax.data._atomic import publish_folder as publish_folder
from dartjax.data._atomic import publish_json as publish_json
from dartjax.data._atomic import read_json as read_json
from dartjax.data._atomic import remove_folder as remove_folder
from dartjax.data._atomic import shard_is_done as shard_is_done
from dartjax.data._atomic import shard_of as shard_of
from dartjax.data._atomic import start_dataset as start_dataset
from dartjax.data._cache import cache_folder as cache_folder
from dartjax.data._cache import remembered as remembered
from dartjax.data.cohorts import EXAMPLE_SUBJECT as EXAMPLE_SUBJECT
from dartjax.data.cohorts import PACKED as PACKED
from dartjax.data.cohorts import XRAY_FORMAT as XRAY_FORMAT
from dartjax.data.cohorts import Case as Case
from dartjax.data.cohorts import DatasetKind as DatasetKind
from dartjax.data.cohorts import Inspected as Inspected
from dartjax.data.cohorts import Layout as Layout
from dartjax.data.cohorts import Leak as Leak
from dartjax.data.cohorts import Manifest as Manifest
from dartjax.data.cohorts import Rejected as Rejected
from dartjax.data.cohorts import Scan as Scan
from dartjax.data.cohorts import ShapeSource as ShapeSource
from dartjax.data.cohorts import Split as Split
from dartjax.data.cohorts import Subject as Subject
from dartjax.data.cohorts import TrainingShape as TrainingShape
from dartjax.data.cohorts import XrayDataset as XrayDataset
from dartjax.data.cohorts import build_case as build_case
from dartjax.data.cohorts import collect_shapes as collect_shapes
from dartjax.data.cohorts import complete_levels as complete_levels
from dartjax.data.cohorts import content_hash as content_hash
from dartjax.data.cohorts import ct_hashes as ct_hashes
from dartjax.data.cohorts import decode_radiograph as decode_radiograph
from dartjax.data.cohorts import encode_radiograph as encode_radiograph
from dartjax.data.cohorts import example_case as example_case
from dartjax.data.cohorts import example_folder as example_folder
from dartjax.data.cohorts import example_is_cached as example_is_cached
from dartjax.data.cohorts import find_shapes as find_shapes
from dartjax.data.cohorts import find_subjects as find_subjects
from dartjax.data.cohorts import foreign_material as foreign_material
from dartjax.data.cohorts import grain as grain
from dartjax.data.cohorts import grid_around as grid_around
from dartjax.data.cohorts import ids_hash as ids_hash
from dartjax.data.cohorts import inspect_scan as inspect_scan
from dartjax.data.cohorts import is_verse19 as is_verse19
from dartjax.data.cohorts import is_verse_small as is_verse_small
from dartjax.data.cohorts import kind_of_shapes as kind_of_shapes
from dartjax.data.cohorts import leaks as leaks
from dartjax.data.cohorts import leaks_into_model as leaks_into_model
from dartjax.data.cohorts import load_case as load_case
from dartjax.data.cohorts import load_centroids as load_centroids
from dartjax.data.cohorts import load_manifest as load_manifest
from dartjax.data.cohorts import load_shapes as load_shapes
from dartjax.data.cohorts import load_spine_scans as load_spine_scans
from dartjax.data.cohorts import names_of as names_of
from dartjax.data.cohorts import open_xrays as open_xrays
from dartjax.data.cohorts import pack_masks as pack_masks
from dartjax.data.cohorts import patient_of as patient_of
from dartjax.data.cohorts import people_behind as people_behind
from dartjax.data.cohorts import radiograph_record as radiograph_record
from dartjax.data.cohorts import read_ids as read_ids
from dartjax.data.cohorts import read_scan as read_scan
from dartjax.data.cohorts import save_manifest as save_manifest
from dartjax.data.cohorts import solid_of as solid_of
from dartjax.data.cohorts import surface_of as surface_of
from dartjax.data.cohorts import unpack_masks as unpack_masks
from dartjax.data.cohorts import verse_small as verse_small
from dartjax.data.cohorts import xray_loader as xray_loader
from dartjax.data.formats import MIN_ANGLE_DEG as MIN_ANGLE_DEG
from dartjax.data.formats import NEEDLE_RADIUS_MM as NEEDLE_RADIUS_MM
from dartjax.data.formats import RECORD_FIELDS as RECORD_FIELDS
from dartjax.data.formats import SUFFIXES as SUFFIXES
from dartjax.data.formats import InitialEstimate as InitialEstimate
from dartjax.data.formats import Kind as Kind
from dartjax.data.formats import PlannedPaths as PlannedPaths
from dartjax.data.formats import angle_between as angle_between
from dartjax.data.formats import angle_from_parallel as angle_from_parallel
from dartjax.data.formats import camera_entry as camera_entry
from dartjax.data.formats import check_views as check_views
from dartjax.data.formats import hu_to_attenuation as hu_to_attenuation
from dartjax.data.formats import load_cameras as load_cameras
from dartjax.data.formats import load_ct as load_ct
from dartjax.data.formats import load_init as load_init
from dartjax.data.formats import load_labels as load_labels
from dartjax.data.formats import load_mesh as load_mesh
from dartjax.data.formats import load_meshes as load_meshes
from dartjax.data.formats import load_radiograph as load_radiograph
from dartjax.data.formats import load_radiographs as load_radiographs
from dartjax.data.formats import load_starts as load_starts
from dartjax.data.formats import mask_centroids as mask_centroids
from dartjax.data.formats import needle as needle
from dartjax.data.formats import present_labels as present_labels
from dartjax.data.formats import read_centroids as read_centroids
from dartjax.data.formats import read_plans as read_plans
from dartjax.data.formats import read_record as read_record
from dartjax.data.formats import save_cameras as save_cameras
from dartjax.data.formats import save_centroids as save_centroids
from dartjax.data.formats import save_ply as save_ply
from dartjax.data.formats import save_starts as save_starts
from dartjax.data.formats import whole_hu as whole_hu
from dartjax.data.packaged import NETWORKS as NETWORKS
from dartjax.data.packaged import SUPERNUMERARY as SUPERNUMERARY
from dartjax.data.packaged import Published as Published
from dartjax.data.packaged import Sex as Sex
from dartjax.data.packaged import StoredFailureModel as StoredFailureModel
from dartjax.data.packaged import as_stored as as_stored
from dartjax.data.packaged import includes_subject as includes_subject
from dartjax.data.packaged import load_failure_model as load_failure_model
from dartjax.data.packaged import load_shape_model as load_shape_model
from dartjax.data.packaged import load_spine_prior as load_spine_prior
from dartjax.data.packaged import load_template as load_template
from dartjax.data.packaged import load_weights as load_weights
from dartjax.data.packaged import open_arrays as open_arrays
from dartjax.data.packaged import plausible_range as plausible_range
from dartjax.data.packaged import published as published
from dartjax.data.packaged import published_targets as published_targets
from dartjax.data.packaged import read_card as read_card
from dartjax.data.packaged import same_subject as same_subject
from dartjax.data.packaged import save_failure_model as save_failure_model
from dartjax.data.packaged import save_shape_models as save_shape_models
from dartjax.data.packaged import save_spine_prior as save_spine_prior
from dartjax.data.packaged import save_template as save_template
from dartjax.data.packaged import save_weights as save_weights
from dartjax.data.packaged import shape_model_card as shape_model_card
from dartjax.data.packaged import shape_model_levels as shape_model_levels
from dartjax.data.packaged import shape_model_set as shape_model_set
from dartjax.data.packaged import spine_prior_card as spine_prior_card

_RENAMED = {"InitialGuess": "InitialEstimate", "judge_levels": "complete_levels"}  # from 0.1

if not TYPE_CHECKING:  # with `__getattr__` a type checker accepts every name

    def __getattr__(name: str) -> Any:
        """Return names of version 0.1 that were renamed or moved to `dartjax.synthverse`.

        `synthverse` is not imported above because it is built on `data`.
        """
        if name in _RENAMED:
            return globals()[_RENAMED[name]]
        if name == "synthverse":
            return importlib.import_module("dartjax.synthverse")
        if name == "synthetic_case":
            return importlib.import_module("dartjax.synthverse").synthetic_case
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
