"""Describe a CT or a mask (NIfTI): its grid, its position in the world, and its values."""

from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from dartjax._errors import DataError
from dartjax.anatomy import LEVEL_OF_LABEL, SACRUM_LABELS
from dartjax.cli.facts._facts import FileFacts, rounded
from dartjax.data import formats

_MANY_VOXELS = 30_000_000  # above this, only the middle slices are read, to be fast
_MAX_LABEL = 255
_MANY_LABELS = 130  # TotalSegmentator has 117
_CHUNK = 1_000_000  # voxels counted at a time, since counting takes eight bytes each
_SPACING_MM = (0.02, 20.0)


def volume_facts(path: Path) -> FileFacts:
    """Describe a NIfTI file. DataError if it cannot be read."""
    with formats.open_nifti(path) as image:
        affine = np.array(image.affine, np.float64)
        shape = _spatial(image.shape)
        values, part = _sample(image, shape)
        doubt = formats.doubt_about_orientation(image)
        facts: dict[str, Any] = {
            "shape": list(map(int, image.shape)),
            "stored_as": str(image.get_data_dtype()),
        }
    if shape is None or values is None:
        problem = f"cannot be used: one 3D image is needed, not shape {tuple(facts['shape'])}"
        return FileFacts(str(path), "NIfTI image", facts, [problem])
    warnings = _grid_warnings(affine)
    if not warnings:
        facts |= _grid(shape, affine)
    counts = _label_counts(values)
    kind, about, more = _ct(values) if counts is None else _mask(counts)
    facts |= about
    if doubt:
        warnings.append(doubt)
    if counts is not None and not warnings and not more:
        more += _order(values, affine)
    if part:
        facts["values_from"] = part
    notes = ["mm in the world of the file's affine (RAS+: +x right, +y anterior, +z superior)"]
    return FileFacts(str(path), kind, facts, [*warnings, *more], notes)


def _spatial(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return the shape of a 3D image, which may have further axes of length 1, or None."""
    single = len(shape) >= 3 and all(n == 1 for n in shape[3:])
    return cast(tuple[int, int, int], tuple(shape[:3])) if single and 0 not in shape else None


def _sample(
    image: SpatialImage, shape: tuple[int, int, int] | None
) -> tuple[np.ndarray | None, str]:
    """Read the values to describe and, for a large image, the name of the part that was read."""
    if shape is None:
        return None, ""
    further = (0,) * (len(image.shape) - 3)
    if np.prod(shape) <= _MANY_VOXELS:
        return np.asanyarray(image.dataobj[(..., *further)]), ""
    half = max(int(_MANY_VOXELS / 2 / (shape[0] * shape[1])), 1)
    first, last = max(shape[2] // 2 - half // 2, 0), min(shape[2] // 2 + half // 2 + 1, shape[2])
    middle = np.asanyarray(image.dataobj[(slice(None), slice(None), slice(first, last), *further)])
    if _label_counts(middle) is not None:  # mostly zeros: fast to read, and every level counts
        return np.asanyarray(image.dataobj[(..., *further)]), ""
    return middle, f"slices {first} to {last - 1} of {shape[2]}"


def _grid_warnings(affine: np.ndarray) -> list[str]:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return ["cannot be used: the affine is singular: repair the header's sform or qform"]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() < _SPACING_MM[0] or spacing.max() > _SPACING_MM[1]:
        return [f"cannot be used: voxels of {rounded(spacing, 5)} mm: the affine must be in mm"]
    return []


def _grid(shape: tuple[int, int, int], affine: np.ndarray) -> dict[str, Any]:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes = np.abs(affine[:3, :3] / spacing)
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in shape], [1.0])).reshape(4, -1)
    world = (affine @ corners)[:3]
    return {
        "spacing_mm": rounded(spacing, 3),
        "orientation": "".join(nib.aff2axcodes(affine)),
        "oblique_deg": rounded(np.degrees(np.arccos(np.clip(axes.max(0).min(), 0.0, 1.0))), 1),
        "field_of_view_mm": rounded(spacing * shape, 1),
        "world_box_from_mm": rounded(world.min(1), 1),
        "world_box_to_mm": rounded(world.max(1), 1),
    }


def _label_counts(values: np.ndarray) -> np.ndarray | None:
    """Count the values 0 to 255 of a mask; None for an image that is not a mask."""
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        return None
    if not 0 <= _rounded(values.min()) <= _rounded(values.max()) <= _MAX_LABEL:
        return None
    labels = _rounded(values).astype(np.uint8, copy=False)
    is_float = np.issubdtype(values.dtype, np.floating)
    if is_float and np.abs(labels - values).max() > formats.LABEL_ROUNDING:
        return None
    counts = np.zeros(_MAX_LABEL + 1, np.int64)
    for part in np.array_split(labels.ravel(order="K"), labels.size // _CHUNK + 1):
        counts += np.bincount(part, minlength=len(counts))
    return counts if np.count_nonzero(counts) <= _MANY_LABELS else None


def _rounded(values: Any) -> Any:
    return np.rint(values) if np.issubdtype(values.dtype, np.floating) else values


def _order(values: np.ndarray, affine: np.ndarray) -> list[str]:
    labels = _rounded(values).astype(np.uint8, copy=False).reshape(values.shape[:3])
    upward = formats.runs_upward(labels, affine)
    return [f"cannot be used: {formats.UPWARD_LABELS}"] if upward else []


def _mask(counts: np.ndarray) -> tuple[str, dict[str, Any], list[str]]:
    present = [int(label) for label in np.flatnonzero(counts) if label]
    foreign = [n for n in present if n not in (*LEVEL_OF_LABEL, *SACRUM_LABELS)]
    levels = [level for label, level in LEVEL_OF_LABEL.items() if label in present]
    facts = {
        "levels": levels,
        "has_sacrum": bool(set(SACRUM_LABELS) & set(present)),
        "foreign_numbers": foreign,
        "labelled_percent": rounded(100.0 * (1.0 - counts[0] / counts.sum()), 2),
    }
    warnings = []
    if foreign:
        warnings.append(
            f"cannot be used: {foreign[:8]} are not VerSe numbers (C1-C7 = 1-7, T1-T12 = 8-19, "
            "L1-L6 = 20-25, T13 = 28): give the numbering of the mask, such as "
            "--labels=totalsegmentator of an experiment, or translate the mask"
        )
    elif not levels:
        warnings.append("cannot be used: the mask holds no vertebra")
    return "vertebra mask", facts, warnings


def _ct(values: np.ndarray) -> tuple[str, dict[str, Any], list[str]]:
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        return "NIfTI image", {}, [f"cannot be used: voxels of type {values.dtype}"]
    bad = 0 if np.issubdtype(values.dtype, np.integer) else int((~np.isfinite(values)).sum())
    if bad:
        return "NIfTI image", {}, [f"cannot be used: {bad} voxels are NaN or infinite"]
    low, high = float(values.min()), float(values.max())
    try:
        formats.check_hounsfield("", values)
        doubt = formats.doubt_about_window(values)
        return "CT", {"hu_range": rounded([low, high], 1)}, [doubt] if doubt else []
    except DataError:
        pass
    return (
        "NIfTI image",
        {"value_range": rounded([low, high], 3)},
        [
            f"cannot be used as a CT: values {low:g} to {high:g} are not Hounsfield units (air "
            "-1000, water 0, bone above 200), and not a mask either"
        ],
    )
