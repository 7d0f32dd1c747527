"""Check hand-written JSON; every message names the file and the key."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dartjax._errors import DataError
from dartjax.anatomy import unknown_name
from dartjax.data.formats._nifti import PathLike


def read_json(path: PathLike) -> Any:
    """Parse a JSON file in UTF-8, with or without a byte order mark. DataError for a missing or
    invalid file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error


def check_keys(where: str, entry: Any, required: Sequence[str], optional: Sequence[str]) -> None:
    """Raise DataError unless `entry` is an object with all required and no unknown keys."""
    if not isinstance(entry, dict):
        raise DataError(
            f"{where}: a JSON object with keys {', '.join([*required, *optional])} is needed"
        )
    for key in entry:
        if key not in (*required, *optional):
            raise DataError(f"{where}: {unknown_name('key', key, [*required, *optional])}")
    missing = [key for key in required if key not in entry]
    if missing:
        raise DataError(f"{where}: missing {', '.join(missing)}")


def number_in(where: str, value: Any, low: float, high: float, unit: str) -> float:
    """Return a number between two bounds. DataError for other values."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise DataError(f"{where}: {value!r} is not a number from {low:g} to {high:g} {unit}")
    return float(value)


def array_of(where: str, value: Any, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Return a finite array of a fixed shape. DataError for other values."""
    kind = " x ".join(map(str, shape))
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {kind} numbers are needed") from error
    if array.shape != shape or not np.isfinite(array).all():
        raise DataError(f"{where}: {kind} finite numbers are needed, not shape {array.shape}")
    return array


def rotation_of(where: str, value: Any) -> Float[np.ndarray, "3 3"]:
    """Return a proper rotation matrix, orthonormalised. DataError if it is off by over 1e-3."""
    rotation = array_of(where, value, (3, 3))
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3:
        raise DataError(
            f"{where}: not a rotation (its rows are not orthonormal): check scaling and units, and "
            "give at least 4 decimals"
        )
    if np.linalg.det(rotation) < 0.0:
        raise DataError(f"{where}: a mirror (determinant -1), not a rotation: flip one axis")
    u, _, vt = np.linalg.svd(rotation)
    return u @ vt
