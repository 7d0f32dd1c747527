"""Check hand-written JSON; every message names the file and the key."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dartjax._documents import read_json as read_json
from dartjax._errors import DataError
from dartjax.anatomy import unknown_name

_TOO_LARGE = 1e9  # of any mm, deg or pixel; larger numbers would not be finite in float32


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


def list_of_texts(where: str, value: Any) -> tuple[str, ...]:
    """Return a list of texts. DataError for other values."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise DataError(f"{where}: a list of texts is needed, not {value!r}")
    return tuple(value)


def array_of(where: str, value: Any, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Return a finite array of a fixed shape. DataError for other values."""
    kind = " x ".join(map(str, shape))
    try:
        if _holds_other_than_numbers(value):
            raise TypeError
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: {kind} numbers are needed") from error
    if array.shape != shape:
        raise DataError(f"{where}: {kind} finite numbers are needed, this has shape {array.shape}")
    if not (np.abs(array) < _TOO_LARGE).all():
        raise DataError(f"{where}: {kind} finite numbers below {_TOO_LARGE:g} are needed")
    return array


def _holds_other_than_numbers(value: Any) -> bool:
    """Return whether nested lists hold texts or truth values, which NumPy would convert."""
    if isinstance(value, list | tuple):
        return any(map(_holds_other_than_numbers, value))
    return isinstance(value, str | bool)


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
