"""Result type of `dartjax info`, and helpers for all kinds of files."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class FileFacts:
    """Description of one file or folder.

    The values of `facts` are plain JSON values; a list of objects is shown as a table. Names end in
    their unit (`spacing_mm`). `warnings` state what will not work, or not well.
    """

    path: str
    kind: str
    facts: Mapping[str, Any]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()  # meaning of the numbers, and what else is needed


def plain(value: Any) -> Any:
    """Return facts with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rounded(value: Any, digits: int = 2) -> Any:
    """Round an array to plain numbers; a scalar gives one number."""
    return (np.round(np.asarray(value, np.float64), digits) + 0.0).tolist()  # no -0


def numbers(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a value as a finite float64 array of this shape, or None if it is not one."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.shape == shape and np.isfinite(array).all() else None
