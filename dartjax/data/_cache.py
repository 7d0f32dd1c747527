"""Cache results of long host computations on disk, under a hash of their inputs."""

import hashlib
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np

from dartjax._errors import DataError
from dartjax.data._atomic import publish_arrays
from dartjax.data.packaged import open_arrays

T = TypeVar("T")


def cache_folder() -> pathlib.Path:
    """Return the cache folder.

    It is $DARTJAX_CACHE, else $XDG_CACHE_HOME/dartjax, else ~/.cache/dartjax. DataError if there is
    no home folder either, as in a container whose user has no account.
    """
    if own := os.environ.get("DARTJAX_CACHE"):
        return pathlib.Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(shared) / "dartjax"
    try:
        return pathlib.Path.home() / ".cache" / "dartjax"
    except RuntimeError as error:
        raise DataError("no home folder for the cache: set DARTJAX_CACHE to a folder") from error


def remembered(
    kind: str, version: str, depends_on: Sequence[np.ndarray], like: T, make: Callable[[], T]
) -> T:
    """Return `make()`, or its cached result for the same input arrays.

    The result is a pytree of arrays with the structure of `like`, stored in the folder `kind` of
    the cache. Change `version` when the same arrays would give another result. Files are written
    atomically; an unreadable file is computed again, and a cache that cannot be written is a
    warning.
    """
    digest = hashlib.sha256(version.encode())
    for array in depends_on:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    file = cache_folder() / kind / f"{digest.hexdigest()[:24]}.npz"
    structure = jax.tree.structure(like)
    if file.is_file():
        try:
            with open_arrays(file) as stored:
                leaves = [stored[f"arr_{i}"] for i in range(structure.num_leaves)]
            return jax.tree.unflatten(structure, leaves)
        except (DataError, KeyError):
            pass
    made = jax.tree.map(np.asarray, make())
    try:
        publish_arrays(file, {f"arr_{i}": leaf for i, leaf in enumerate(jax.tree.leaves(made))})
    except OSError as error:
        warnings.warn(
            f"{file}: the cache cannot be written ({error.strerror}), so this will be computed "
            "again: set DARTJAX_CACHE to another folder",
            stacklevel=2,
        )
    return made
