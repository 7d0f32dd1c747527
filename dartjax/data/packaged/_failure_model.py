"""The model that says how likely a reconstruction failed, as it is shipped: numbers and a card.

`model.npz` (no pickle) holds the arrays, `card.json` the names of the features, what the model was
fitted on, the command, and how well it did on subjects left out.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dartjax._errors import DataError
from dartjax.data.packaged._stored import CARD, open_arrays, read_card, write_card

FAILURE_MODEL = pathlib.Path(__file__).parents[2] / "assets" / "failure"
_MODEL = "model.npz"
_ROWS = ("mean", "scale", "weights")
_NUMBERS = ("bias", "threshold")
_PAIRS = ("inflation", "path_inflation")  # of answers that are given, and of those refused
_ARRAYS = (*_ROWS, *_NUMBERS, *_PAIRS)
_FIELDS = {"name", "features", "subjects_included", "max_risk", "command", "quality"}


class StoredFailureModel(NamedTuple):
    """Logistic regression: probability = sigmoid(bias + weights . (features - mean) / scale).

    `threshold` is the highest probability to accept, chosen where the model was fitted.
    `inflation` multiplies the standard deviations of distances to the surface, `path_inflation`
    those of points of the needle paths; of answers up to the threshold, and of those beyond.
    """

    features: tuple[str, ...]
    mean: Float[np.ndarray, " feature"]
    scale: Float[np.ndarray, " feature"]  # inf where the feature had a single value
    weights: Float[np.ndarray, " feature"]
    bias: float
    threshold: float
    inflation: Float[np.ndarray, "2"]
    path_inflation: Float[np.ndarray, "2"]
    card: dict[str, Any]


def load_failure_model(path: str | pathlib.Path | None = None) -> StoredFailureModel:
    """The packaged model, or the one in a folder written by `experiments.fit_failure_model`.

    DataError when it is missing, damaged, or its parts do not belong together.
    """
    folder = FAILURE_MODEL if path is None else pathlib.Path(path)
    card = read_card(
        folder, beside=_MODEL, fields=_FIELDS, what="a failure model", maker="save_failure_model"
    )
    with open_arrays(folder / _MODEL) as stored_arrays:
        arrays = {name: stored_arrays[name] for name in _ARRAYS}
    parts: dict[str, Any] = {name: arrays[name] for name in (*_ROWS, *_PAIRS)}
    parts |= {name: _number(arrays[name], folder) for name in _NUMBERS}
    stored = StoredFailureModel(features=tuple(card["features"]), card=card, **parts)
    _check(stored, folder)
    return stored


def save_failure_model(folder: str | pathlib.Path, stored: StoredFailureModel) -> None:
    """Write a model; `features` and the card must agree."""
    target = pathlib.Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        name: np.asarray(getattr(stored, name), np.float32) for name in _ARRAYS
    }
    np.savez(target / _MODEL, **arrays)
    write_card(target, {**stored.card, "features": list(stored.features)})


def _number(array: np.ndarray, folder: pathlib.Path) -> float:
    if array.size != 1:
        raise DataError(f"{folder / _MODEL} holds numbers that are no failure model")
    return float(array.reshape(()))


def _check(stored: StoredFailureModel, folder: pathlib.Path) -> None:
    shape = (len(stored.features),)
    if any(np.shape(getattr(stored, name)) != shape for name in _ROWS):
        raise DataError(f"{folder}: {_MODEL} does not have the {shape[0]} features of {CARD}")
    factors = [np.asarray(getattr(stored, name)) for name in _PAIRS]
    finite = [stored.mean, stored.weights, stored.bias, stored.threshold, *factors]
    sound = all(np.isfinite(number).all() for number in finite)
    sound = sound and all(f.shape == (2,) and (f > 0.0).all() for f in factors)
    if not sound or not (stored.scale > 0.0).all():
        raise DataError(f"{folder / _MODEL} holds numbers that are no failure model")
