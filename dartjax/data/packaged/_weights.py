"""Load and save the weights of a network: one npz without pickle, and a card."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dartjax._errors import DataError
from dartjax.data.packaged import _stored as _stored

NETWORKS = pathlib.Path(__file__).parents[2] / "assets" / "networks"
_WEIGHTS = "weights.npz"
_FIELDS = {"name", "preset", "subjects_included", "never_seen", "command", "quality"}
_SEPARATOR = "/"


def save_weights(
    folder: str | pathlib.Path, params: Mapping[str, Any], card: Mapping[str, Any]
) -> None:
    """Write nested parameters as half-precision floats, with their card."""
    arrays = {name: np.asarray(leaf, np.float16) for name, leaf in _flat(params)}
    _stored.write_stored(folder, _WEIGHTS, arrays, card)


def load_weights(
    folder: str | pathlib.Path, like: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Load float32 parameters with the structure and shapes of `like`, and their card.

    DataError when a file is missing or damaged, or belongs to another network.
    """
    source = pathlib.Path(folder)
    card = read_card(source)
    with _stored.open_arrays(
        source / _WEIGHTS, remedy="train again, or install dartjax again"
    ) as arrays:
        found = {name: np.asarray(arrays[name], np.float32) for name in arrays.files}
    expected = {name: tuple(leaf.shape) for name, leaf in _flat(like)}
    shapes = {name: array.shape for name, array in found.items()}
    if shapes != expected:
        other = sorted(set(shapes.items()) ^ set(expected.items()))[0][0]
        raise DataError(
            f"{source / _WEIGHTS} does not fit the network of preset {card['preset']} "
            f"(at {other}): train again"
        )
    if not all(np.isfinite(array).all() for array in found.values()):
        raise DataError(f"{source / _WEIGHTS} holds NaN or infinite numbers: train again")
    return _nested(found), card


def read_card(folder: str | pathlib.Path) -> dict[str, Any]:
    """Read the card of the weights in a folder. DataError if there are none."""
    return _stored.read_card(
        folder,
        data_file=_WEIGHTS,
        fields=_FIELDS,
        what="a network",
        maker="save_weights",
    )


def _flat(params: Mapping[str, Any], prefix: str = ""):
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}{_SEPARATOR}")
        else:
            yield f"{prefix}{name}", value


def _nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, array in arrays.items():
        *path, last = name.split(_SEPARATOR)
        level = nested
        for part in path:
            level = level.setdefault(part, {})
        level[last] = array
    return nested
