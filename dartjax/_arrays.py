"""Read NumPy files without pickle."""

import os
import struct
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np

from dartjax._errors import DataError

PathLike = str | os.PathLike[str]

# What NumPy, zipfile and zlib raise for damaged .npy and .npz files.
UNREADABLE_ARRAYS = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, SyntaxError, OverflowError, MemoryError),
    *(NotImplementedError, RuntimeError, struct.error, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error),
)


def map_array(path: PathLike) -> Any:
    """Open an array of a .npy file mapped into memory, so that no size in its header allocates.

    DataError for a missing or damaged file and for one of several arrays (.npz).
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE_ARRAYS as error:
        raise DataError(
            f"{path}: not a readable image or array, truncated or damaged ({error})"
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path}: several arrays (.npz): save one array with numpy.save")
    return array
