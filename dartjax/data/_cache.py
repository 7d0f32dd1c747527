"""Results of long host computations, kept on disk under a hash of what they depend on."""

import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np

from dartjax._errors import DataError
from dartjax.data._atomic import publish_arrays
from dartjax.data.packaged import open_arrays

T = TypeVar("T")


def cache_folder() -> pathlib.Path:
    """Where fetched files are kept: $DARTJAX_CACHE, else $XDG_CACHE_HOME/dartjax, else
    ~/.cache/dartjax."""
    if own := os.environ.get("DARTJAX_CACHE"):
        return pathlib.Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(shared) / "dartjax"
    return pathlib.Path.home() / ".cache" / "dartjax"


def remembered(
    kind: str, version: str, depends_on: Sequence[np.ndarray], like: T, make: Callable[[], T]
) -> T:
    """`make()`, or what it returned when it was last called with the same arrays.

    The result is a pytree of arrays with the structure of `like`, kept in the folder `kind` of
    the cache. Change `version` when the same arrays would give another result. Files are written
    atomically; one that cannot be read is made again.
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
        except DataError:
            pass
    made = jax.tree.map(np.asarray, make())
    publish_arrays(file, {f"arr_{i}": leaf for i, leaf in enumerate(jax.tree.leaves(made))})
    return made
