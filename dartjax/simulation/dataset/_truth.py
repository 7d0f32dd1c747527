"""What is true of the vertebrae in a CT, found once per scan and kept beside the radiographs."""

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
_NOT_ASKED = "no dense fit was asked for"
_FIELD_VOXELS = 64


class VertebraTruth(NamedTuple):
    """One labelled vertebra, world mm. What is None is unknown for `reason`."""

    level: str
    whole: bool  # complete in the CT
    center_world: Float[np.ndarray, "3"]  # of the label
    reason: str  # "" when the dense fit is trusted
    dense_dice: float | None  # of that fit with the label
    world_from_vertebra: Float[np.ndarray, "4 4"] | None
    landmarks_world: Float[np.ndarray, "10 3"] | None
    paths_world: Float[np.ndarray, "2 2 3"] | None  # (left, right) x (entry, target)
    wall_distance_mm: Float[np.ndarray, "2"] | None  # least, from the axis of each path

    @property
    def label(self) -> int:
        """VerSe number."""
        return data.label_of(self.level)

    @property
    def paths_feasible(self) -> Bool[np.ndarray, "2"]:
        """Which paths keep 2.5 mm from every wall; false where that is unknown."""
        if self.wall_distance_mm is None:
            return np.zeros(2, bool)
        return self.wall_distance_mm >= NEEDLE_RADIUS_MM


class ScanTruth(NamedTuple):
    """Ground truth of a scan: who it is, and its vertebrae from head to foot."""

    subject: str
    dataset: str
    dataset_kind: str
    split: str
    parents: tuple[str, ...]
    ct_hash: str
    shape_models: str  # whose mean shape carries landmarks and paths to the surfaces
    shape_models_include: tuple[str, ...]  # parents of the subject that these have seen
    vertebrae: tuple[VertebraTruth, ...]

    @property
    def levels(self) -> tuple[str, ...]:
        """Every labelled level, complete or not."""
        return tuple(vertebra.level for vertebra in self.vertebrae)


def find_truth(case: data.Case, *, dense_fit: bool, step: Step = no_step) -> ScanTruth:
    """Truth of a case: landmarks, pose and paths of every complete level by a dense fit of the
    template to its label, written only if the two have a Dice above 0.85.

    `step` is told of every level. Without `dense_fit` only levels and centres are known.
    """
    affine = np.asarray(case.ct.world_from_voxel, np.float64)
    folder, seen_parents = _template_of(case)
    known = (*data.shape_model_levels(folder), *data.SUPERNUMERARY)
    vertebrae = []
    for level in (name for name in data.LABEL_OF_LEVEL if name in {*case.levels, *case.rejected}):
        reason = case.rejected.get(level, "" if dense_fit else _NOT_ASKED)
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
    """Shape models to carry the truth by: without the subject and, if there is such a set, its
    parents; else those of its parents that are in. What is carried belongs to the surface."""
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
    """Least distance from the axis of each path to the bone's surface; see planning.clearance."""
    field = planning.distance_field_from_mesh(surface)
    # Padded, so that one compiled program serves most vertebrae; the paths are far inside.
    padding = [(0, -side % _FIELD_VOXELS) for side in field.values.shape]
    field = dataclasses.replace(field, values=jnp.pad(field.values, padding, mode="edge"))
    radius = jnp.asarray(NEEDLE_RADIUS_MM)
    needles = [NeedlePath(jnp.asarray(entry), jnp.asarray(tip), radius) for entry, tip in paths]
    room = [float(_clearance(needle, field).clearance) for needle in needles]
    return np.array(room) + NEEDLE_RADIUS_MM


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
    """The truth kept at `path`, or else found and written there. The same either way.

    DataError if what is there belongs to another CT.
    """
    if not path.exists():
        data.publish_json(path, truth_to_json(find()))
    found = read_truth(path)
    if found.ct_hash != case.ct_hash:
        raise DataError(
            f"{path} was made of another CT than {case.subject} has now: write the data set "
            "again into a fresh folder"
        )
    return found


def truth_to_json(truth: ScanTruth) -> dict[str, Any]:
    """The truth of a scan as it is written, in the words of docs/xray_datasets.md."""
    plain = truth._asdict() | {
        "parents": list(truth.parents),
        "shape_models_include": list(truth.shape_models_include),
        "vertebrae": [_vertebra_to_json(vertebra) for vertebra in truth.vertebrae],
    }
    return plain


def read_truth(path: pathlib.Path) -> ScanTruth:
    """Read what `truth_to_json` says from a file."""
    content = data.read_json(path)
    vertebrae = tuple(_vertebra_of(entry) for entry in content.pop("vertebrae"))
    for name in ("parents", "shape_models_include"):
        content[name] = tuple(content[name])
    return ScanTruth(**content, vertebrae=vertebrae)


def plain_floats(array: Any, digits: int = 4) -> Any:
    """An array as nested lists rounded to so many digits (0.1 micrometre for mm)."""
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
    room = zip(vertebra.paths_world, np.asarray(vertebra.wall_distance_mm), strict=True)
    paths = [
        {
            "entry_point": plain_floats(ends[0]),
            "target_point": plain_floats(ends[1]),
            "wall_distance_mm": round(float(wall), 3),
            "feasible": bool(round(float(wall), 3) >= NEEDLE_RADIUS_MM),
        }
        for ends, wall in room
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
