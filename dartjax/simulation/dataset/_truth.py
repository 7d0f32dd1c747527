"""Ground truth of the vertebrae in a CT, computed once per scan and stored with the radiographs."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from dartjax import data, planning
from dartjax._progress import Step, no_step
from dartjax.data import NEEDLE_RADIUS_MM, DataError
from dartjax.mesh import TriangleMesh
from dartjax.observations import LANDMARK_NAMES, SIDES, NeedlePath
from dartjax.simulation import _ground_truth

TRUTH_FILE = "truth.json"  # in the folder of a scan
_NO_DENSE_FIT = "no dense fit was requested"
_FIELD_VOXELS = 64


class VertebraTruth(NamedTuple):
    """Ground truth of one labelled vertebra, world mm. `reason` explains fields that are None."""

    level: str
    whole: bool  # complete in the CT
    center_world: Float[np.ndarray, "3"]  # of the label
    reason: str  # "" if the dense fit is trusted
    dense_dice: float | None  # of that fit with the label
    world_from_vertebra: Float[np.ndarray, "4 4"] | None
    landmarks_world: Float[np.ndarray, "10 3"] | None
    paths_world: Float[np.ndarray, "2 2 3"] | None  # (left, right) x (entry, target)
    wall_distance_mm: Float[np.ndarray, "2"] | None  # smallest, from the axis of each path

    @property
    def label(self) -> int:
        """VerSe number."""
        return data.label_of(self.level)

    @property
    def paths_feasible(self) -> Bool[np.ndarray, "2"]:
        """Mask of paths with at least 2.5 mm to every wall; false if unknown."""
        if self.wall_distance_mm is None:
            return np.zeros(2, bool)
        return self.wall_distance_mm >= NEEDLE_RADIUS_MM


class ScanTruth(NamedTuple):
    """Ground truth of a scan: its subject, and its vertebrae from head to foot."""

    subject: str
    dataset: str
    dataset_kind: str
    split: str
    parents: tuple[str, ...]
    ct_hash: str
    shape_models: str  # with the template that transfers landmarks and paths to the surfaces
    shape_models_include: tuple[str, ...]  # parents of the subject included in these models
    vertebrae: tuple[VertebraTruth, ...]

    @property
    def levels(self) -> tuple[str, ...]:
        """Every labelled level, complete or not."""
        return tuple(vertebra.level for vertebra in self.vertebrae)


def find_truth(case: data.Case, *, dense_fit: bool, step: Step = no_step) -> ScanTruth:
    """Compute the ground truth of a case.

    Landmarks, pose and paths of every complete level come from a dense fit of the template to its
    label; they are omitted if the Dice of the two is not above 0.85. `step` is called after every
    level. Without `dense_fit` only levels and centres are known.
    """
    affine = np.asarray(case.ct.world_from_voxel, np.float64)
    folder, seen_parents = _template_of(case)
    known = (*data.shape_model_levels(folder), *data.SUPERNUMERARY)
    vertebrae = []
    for level in (name for name in data.LABEL_OF_LEVEL if name in {*case.levels, *case.rejected}):
        reason = case.rejected.get(level, "" if dense_fit else _NO_DENSE_FIT)
        if not reason and level not in known:
            reason = "no shape model has this level"
        center = _center_of(case.labels == data.label_of(level), affine)
        if reason:
            vertebrae.append(_unknown(level, level in case.levels, center, reason))
        else:
            vertebrae.append(_densely_fitted(case, level, center, folder))
        step(level)
    return ScanTruth(
        subject=case.subject,
        dataset=case.dataset,
        dataset_kind=case.dataset_kind,
        split=case.split,
        parents=case.parents,
        ct_hash=case.ct_hash,
        shape_models=folder.name,
        shape_models_include=seen_parents,
        vertebrae=tuple(vertebrae),
    )


def _template_of(case: data.Case) -> tuple[pathlib.Path, tuple[str, ...]]:
    """Folder of shape models whose template transfers landmarks and paths to a surface.

    A set that excludes the subject and its parents; if there is none, a set that excludes the
    subject, together with the parents that it includes.
    """
    try:
        return data.shape_model_set([case.subject, *case.parents]), ()
    except DataError:
        folder = data.shape_model_set([case.subject])
    card = data.shape_model_card(folder)
    seen = (parent for parent in case.parents if data.includes_subject(card, parent))
    return folder, tuple(seen)


def _densely_fitted(
    case: data.Case, level: str, center: Float[np.ndarray, "3"], folder: pathlib.Path
) -> VertebraTruth:
    fit = _ground_truth.dense_fit(case, level, data.load_shape_model(level, path=folder))
    if not fit.is_trusted:
        reason = (
            f"the dense fit has a Dice of {fit.dice:.2f}, not above {_ground_truth.DENSE_FIT_DICE}"
        )
        return _unknown(level, True, center, reason, fit.dice)
    dense = fit.registration
    return VertebraTruth(
        level=level,
        whole=True,
        center_world=center,
        reason="",
        dense_dice=fit.dice,
        world_from_vertebra=np.asarray(dense.pose.as_matrix()),
        landmarks_world=np.asarray(dense.landmarks),
        paths_world=np.asarray(dense.paths),
        wall_distance_mm=_wall_distance(np.asarray(dense.paths), fit.surface),
    )


def _wall_distance(
    paths: Float[np.ndarray, "2 2 3"], surface: TriangleMesh
) -> Float[np.ndarray, "2"]:
    """Smallest distance of the axis of each path from the bone's surface (planning.clearance)."""
    field = planning.distance_field_from_mesh(surface)
    # Padded so that one compiled program serves most vertebrae; the paths are far inside.
    padding = [(0, -side % _FIELD_VOXELS) for side in field.values.shape]
    field = dataclasses.replace(field, values=jnp.pad(field.values, padding, mode="edge"))
    radius = jnp.asarray(NEEDLE_RADIUS_MM)
    needles = [NeedlePath(jnp.asarray(entry), jnp.asarray(tip), radius) for entry, tip in paths]
    clearances = [float(_clearance(needle, field).clearance) for needle in needles]
    return np.array(clearances) + NEEDLE_RADIUS_MM


_clearance = jax.jit(planning.clearance)


def _unknown(
    level: str,
    whole: bool,
    center: Float[np.ndarray, "3"],
    reason: str,
    dice: float | None = None,
) -> VertebraTruth:
    return VertebraTruth(level, whole, center, reason, dice, None, None, None, None)


def _center_of(
    inside: Bool[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "3"]:
    middle = np.argwhere(inside).mean(0)
    return affine[:3, :3] @ middle + affine[:3, 3]


def load_or_find_truth(
    path: pathlib.Path, case: data.Case, find: Callable[[], ScanTruth]
) -> ScanTruth:
    """Read the ground truth at `path`; if the file does not exist, compute and write it first.

    Raises DataError if the file belongs to another CT.
    """
    if not path.exists():
        data.publish_json(path, truth_to_json(find()))
    found = read_truth(path)
    if found.ct_hash != case.ct_hash:
        raise DataError(
            f"{path} belongs to another CT than the present one of {case.subject}: write the data "
            "set into a new folder"
        )
    return found


def truth_to_json(truth: ScanTruth) -> dict[str, Any]:
    """Convert the ground truth of a scan to JSON; docs/xray_datasets.md describes the keys."""
    plain = truth._asdict() | {
        "parents": list(truth.parents),
        "shape_models_include": list(truth.shape_models_include),
        "vertebrae": [_vertebra_to_json(vertebra) for vertebra in truth.vertebrae],
    }
    return plain


def read_truth(path: pathlib.Path) -> ScanTruth:
    """Read a file with the content of `truth_to_json`."""
    content = data.read_json(path)
    vertebrae = tuple(_vertebra_of(entry) for entry in content.pop("vertebrae"))
    for name in ("parents", "shape_models_include"):
        content[name] = tuple(content[name])
    return ScanTruth(**content, vertebrae=vertebrae)


def plain_floats(array: Any, digits: int = 4) -> Any:
    """Convert an array to nested lists, rounded to `digits` (4: 0.1 micrometre for mm)."""
    return np.round(np.asarray(array, np.float64), digits).tolist()


def _vertebra_to_json(vertebra: VertebraTruth) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "level": vertebra.level,
        "label": vertebra.label,
        "whole": vertebra.whole,
        "center_world": plain_floats(vertebra.center_world),
        "dense_dice": None if vertebra.dense_dice is None else round(vertebra.dense_dice, 4),
        "reason": vertebra.reason,
        "world_from_vertebra": None,
        "landmarks_world": None,
        "paths_world": None,
    }
    if vertebra.landmarks_world is None or vertebra.paths_world is None:
        return entry
    landmarks = plain_floats(vertebra.landmarks_world)
    paths_and_walls = zip(vertebra.paths_world, np.asarray(vertebra.wall_distance_mm), strict=True)
    paths = [
        {
            "entry_point": plain_floats(ends[0]),
            "target_point": plain_floats(ends[1]),
            "wall_distance_mm": round(float(wall), 3),
            "feasible": bool(round(float(wall), 3) >= NEEDLE_RADIUS_MM),
        }
        for ends, wall in paths_and_walls
    ]
    return entry | {
        "world_from_vertebra": plain_floats(vertebra.world_from_vertebra, 7),
        "landmarks_world": dict(zip(LANDMARK_NAMES, landmarks, strict=True)),
        "paths_world": dict(zip(SIDES, paths, strict=True)),
    }


def _vertebra_of(entry: Mapping[str, Any]) -> VertebraTruth:
    center = np.array(entry["center_world"])
    if entry["landmarks_world"] is None:
        return _unknown(
            entry["level"], entry["whole"], center, entry["reason"], entry["dense_dice"]
        )
    paths = [entry["paths_world"][side] for side in SIDES]
    return VertebraTruth(
        level=entry["level"],
        whole=entry["whole"],
        center_world=center,
        reason=entry["reason"],
        dense_dice=entry["dense_dice"],
        world_from_vertebra=np.array(entry["world_from_vertebra"]),
        landmarks_world=np.array([entry["landmarks_world"][name] for name in LANDMARK_NAMES]),
        paths_world=np.array([[path["entry_point"], path["target_point"]] for path in paths]),
        wall_distance_mm=np.array([path["wall_distance_mm"] for path in paths]),
    )
