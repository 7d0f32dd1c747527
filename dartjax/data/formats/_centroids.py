"""Read and write VerSe's centroid files (JSON) as points in world RAS+ mm.

A file is a list of {"label", "X", "Y", "Z"}, usually with one {"direction": ["P", "I", "R"]}. The
numbers are voxel indices of the image reoriented to that direction (axis X runs toward posterior,
...). The challenges' files have no direction; they count millimetres from the first voxel instead:
VerSe'20's `*_iso-ctd.json` along P, I, R, VerSe'19's `*_ctd.json` along I, P, L. They were rounded
to a 1 mm grid, so they are accurate to about 1 mm, along thick slices to half a slice.
Sources: osf.io/b2wxj (wiki), verse2020.grand-challenge.org/VerSe_at_MICCAI19, and
github.com/anjany/verse (utils/data_utilities.py: `rescale_centroids`; its
`reorient_centroids_to` is one voxel off along flipped axes).
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from jaxtyping import Float, UInt8
from nibabel import orientations
from scipy import ndimage

from dartjax._arrays import PathLike
from dartjax._errors import DataError
from dartjax.anatomy import LEVEL_OF_LABEL, SACRUM_LABELS, label_of, level_of
from dartjax.data.formats._json import read_json

Affine = Float[np.ndarray, "4 4"]
Centroids = dict[str, Float[np.ndarray, "3"]]

_VERSE20, _VERSE19 = ("P", "I", "R"), ("I", "P", "L")
_ISO_NAME = re.compile(r"[_-]iso-ctd|_ctd-iso")
_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))


def read_centroids(path: PathLike, shape: tuple[int, ...], affine: Affine) -> Centroids:
    """Read the centroids of one file by level, in world RAS+ mm.

    `shape` and `affine` are those of the image. Entries with NaN, sacrum and coccyx are skipped.
    DataError for a file that is not such a list, an invalid direction, a label outside 1-28, a
    level that occurs twice, and a centroid more than 5 mm outside the image.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise DataError(f'{path}: a list of {{"label", "X", "Y", "Z"}} is needed')
    headers = [entry["direction"] for entry in entries if "direction" in entry]
    named_iso = _ISO_NAME.search(Path(path).name) is not None
    default = _VERSE20 if named_iso else _VERSE19
    direction = _checked_direction(path, headers[0] if headers else default)
    world_from_file = _world_from_file(shape, affine, direction, is_iso=named_iso or not headers)
    found: Centroids = {}
    for entry in entries:
        if "direction" in entry or (placed := _point(path, entry)) is None:
            continue
        level, point = placed
        if level in found:
            raise DataError(f"{path}: {level} occurs twice")
        found[level] = world_from_file[:3, :3] @ point + world_from_file[:3, 3]
    _check_inside(path, found, shape, affine)
    return {level: found[level] for level in LEVEL_OF_LABEL.values() if level in found}


def save_centroids(
    path: PathLike,
    centroids: Mapping[str, Float[np.ndarray, "3"]],
    shape: tuple[int, ...],
    affine: Affine,
    *,
    direction: tuple[str, str, str] | None = None,
) -> None:
    """Write centroids (world RAS+ mm) in VerSe's format.

    The numbers are voxel indices with two decimals along `direction`, by default the image's axes.
    """
    axes = direction or cast(tuple[str, str, str], nib.aff2axcodes(affine))
    file_from_world = np.linalg.inv(_world_from_file(shape, affine, axes, is_iso=False))
    entries: list[dict[str, Any]] = [{"direction": list(axes)}]
    for level, point in centroids.items():
        x, y, z = (file_from_world[:3, :3] @ point + file_from_world[:3, 3]).round(2).tolist()
        entries.append({"label": label_of(level), "X": x, "Y": y, "Z": z})
    Path(path).write_text(json.dumps(entries) + "\n", encoding="utf-8")


def mask_centroids(labels: UInt8[np.ndarray, "i j k"], affine: Affine) -> Centroids:
    """Compute the centre of mass of every vertebra of a mask by level, in world RAS+ mm.

    The processes are included. These points therefore lie posterior to VerSe's centroids, which are
    in the vertebral body.
    """
    boxes = ndimage.find_objects(labels)
    found = {}
    for label, level in LEVEL_OF_LABEL.items():
        box = boxes[label - 1] if label <= len(boxes) else None
        if box is not None:
            voxel = np.argwhere(labels[box] == label).mean(0) + [side.start for side in box]
            found[level] = affine[:3, :3] @ voxel + affine[:3, 3]
    return found


def _world_from_file(
    shape: tuple[int, ...], affine: Affine, direction: tuple[str, ...], *, is_iso: bool
) -> Affine:
    """Return the affine map from a file's numbers to world mm."""
    turn = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(direction)
    )
    world_from_turned = affine @ orientations.inv_ornt_aff(turn, shape)
    if not is_iso:
        return world_from_turned
    spacing = np.linalg.norm(world_from_turned[:3, :3], axis=0)
    return world_from_turned @ np.diag([*(1.0 / spacing), 1.0])


def _checked_direction(path: PathLike, direction: Any) -> tuple[str, str, str]:
    is_list = isinstance(direction, list | tuple) and all(isinstance(x, str) for x in direction)
    letters = tuple(direction) if is_list else ()
    pairs = {frozenset((letter, _OPPOSITE.get(letter, ""))) for letter in letters}
    if len(letters) != 3 or len(pairs) != 3 or not set(letters) <= set(_OPPOSITE):
        raise DataError(
            f"{path}: the direction {direction!r} is invalid: give one each of R/L, A/P and S/I, "
            'such as ["P", "I", "R"]'
        )
    return letters


def _point(path: PathLike, entry: dict[str, Any]) -> tuple[str, Float[np.ndarray, "3"]] | None:
    """Parse level and coordinates of an entry; None without coordinates, and for the sacrum."""
    try:
        label = int(entry["label"])
        point = np.array([float(entry[axis]) for axis in "XYZ"])
        if isinstance(entry["label"], bool | str) or label != entry["label"]:
            raise ValueError("label")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: {entry} must have label, X, Y and Z") from error
    if label in SACRUM_LABELS or not all(map(math.isfinite, point)):
        return None
    try:
        return level_of(label), point
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _check_inside(path: PathLike, found: Centroids, shape: tuple[int, ...], affine: Affine) -> None:
    margin = 5.0 / np.linalg.norm(affine[:3, :3], axis=0)
    for level, point in found.items():
        voxel = np.linalg.solve(affine, np.append(point, 1.0))[:3]
        if (voxel < -margin).any() or (voxel > np.array(shape) - 1 + margin).any():
            raise DataError(
                f"{path}: the centroid of {level} lies outside the image, at voxel "
                f"{voxel.round(1).tolist()} of {tuple(shape)}: the file belongs to another "
                "image or release"
            )
