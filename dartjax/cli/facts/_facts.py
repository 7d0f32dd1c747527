"""Result type of `dartjax info`, and helpers for all kinds of files."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dartjax._errors import DataError


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


def rounded(value: Any, digits: int = 2) -> Any:
    """Round an array to plain numbers; a scalar gives one number."""
    return (np.round(np.asarray(value, np.float64), digits) + 0.0).tolist()  # no -0


def numbers(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a value as a finite float64 array of this shape, or None if it is not one."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        return None
    return array if array.shape == shape and np.isfinite(array).all() else None


def read_document(path: Path) -> Any:
    """Parse a JSON file. DataError for a missing or invalid file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON, truncated or damaged ({error})") from error
