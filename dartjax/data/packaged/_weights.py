"""Parameters of a network on disk: one npz without pickle and a card that says what they are."""

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
    """Write nested parameters as half-precision floats."""
    target = pathlib.Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(leaf, np.float16) for name, leaf in _flat(params)}
    np.savez_compressed(target / _WEIGHTS, **arrays)  # pyright: ignore[reportArgumentType]
    _stored.write_card(target, dict(card))


def load_weights(
    folder: str | pathlib.Path, like: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters with the structure and shapes of `like`, float32, and the card.

    DataError when something is missing, damaged, or belongs to another network.
    """
    source = pathlib.Path(folder)
    card = read_card(source)
    with _stored.open_arrays(source / _WEIGHTS, remedy="train or install again") as arrays:
        found = {name: np.asarray(arrays[name], np.float32) for name in arrays.files}
    expected = {name: tuple(leaf.shape) for name, leaf in _flat(like)}
    shapes = {name: array.shape for name, array in found.items()}
    if shapes != expected:
        other = sorted(set(shapes.items()) ^ set(expected.items()))[0][0]
        raise DataError(
            f"{source / _WEIGHTS} holds another network than preset {card['preset']} (at {other}): "
            "train again"
        )
    if not all(np.isfinite(array).all() for array in found.values()):
        raise DataError(f"{source / _WEIGHTS} holds numbers that are not finite: train again")
    return _nested(found), card


def read_card(folder: str | pathlib.Path) -> dict[str, Any]:
    """What the weights in a folder are; DataError if there are none."""
    return _stored.read_card(
        folder,
        beside=_WEIGHTS,
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
