"""Load and save the failure model: its numbers and its card.

The model gives the probability that a reconstruction failed. `model.npz` (no pickle) holds the
arrays. `card.json` holds the names of the features, the subjects the model was fitted on, the
command, and its quality on held-out subjects.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from dartjax._errors import DataError
from dartjax.data.packaged._stored import CARD, open_arrays, read_card, write_stored

FAILURE_MODEL = pathlib.Path(__file__).parents[2] / "assets" / "failure"
_MODEL = "model.npz"
_ROWS = ("mean", "scale", "weights")
_NUMBERS = ("bias", "threshold")
_PAIRS = ("inflation", "path_inflation")  # of given answers, and of abstentions
_ARRAYS = (*_ROWS, *_NUMBERS, *_PAIRS)
_FIELDS = {"name", "features", "subjects_included", "max_risk", "command", "quality"}


class StoredFailureModel(NamedTuple):
    """Logistic regression: probability = sigmoid(bias + weights . (features - mean) / scale).

    `threshold` is the highest failure probability to accept, chosen when the model was fitted.
    `inflation` multiplies the standard deviations of the distance to the surface,
    `path_inflation` those of the points of needle paths. Each holds two factors: the first for
    answers up to the threshold, the second for answers above it.
    """

    features: tuple[str, ...]
    mean: Float[np.ndarray, " feature"]
    scale: Float[np.ndarray, " feature"]  # inf for a constant feature
    weights: Float[np.ndarray, " feature"]
    bias: float
    threshold: float
    inflation: Float[np.ndarray, "2"]
    path_inflation: Float[np.ndarray, "2"]
    card: dict[str, Any]


def load_failure_model(path: str | pathlib.Path | None = None) -> StoredFailureModel:
    """Load the packaged failure model, or one that `experiments.fit_failure_model` wrote.

    DataError when it is missing or damaged, or when its parts do not match.
    """
    folder = FAILURE_MODEL if path is None else pathlib.Path(path)
    card = read_card(
        folder, data_file=_MODEL, fields=_FIELDS, what="a failure model", maker="save_failure_model"
    )
    with open_arrays(folder / _MODEL) as stored_arrays:
        arrays = {name: stored_arrays[name] for name in _ARRAYS}
    parts: dict[str, Any] = {name: arrays[name] for name in (*_ROWS, *_PAIRS)}
    parts |= {name: _number(arrays[name], folder) for name in _NUMBERS}
    stored = StoredFailureModel(features=tuple(card["features"]), card=card, **parts)
    _check(stored, folder)
    return stored


def save_failure_model(folder: str | pathlib.Path, stored: StoredFailureModel) -> None:
    """Write a failure model and its card to a folder."""
    arrays: dict[str, Any] = {
        name: np.asarray(getattr(stored, name), np.float32) for name in _ARRAYS
    }
    write_stored(folder, _MODEL, arrays, {**stored.card, "features": list(stored.features)})


def _number(array: np.ndarray, folder: pathlib.Path) -> float:
    if array.size != 1:
        raise DataError(f"{folder / _MODEL} does not hold a valid failure model")
    return float(array.reshape(()))


def _check(stored: StoredFailureModel, folder: pathlib.Path) -> None:
    shape = (len(stored.features),)
    if any(np.shape(getattr(stored, name)) != shape for name in _ROWS):
        raise DataError(f"{folder}: {_MODEL} does not have the {shape[0]} features of {CARD}")
    factors = [np.asarray(getattr(stored, name)) for name in _PAIRS]
    rows = [np.asarray(getattr(stored, name)) for name in _ROWS]
    if any(array.dtype.kind not in "iuf" for array in (*rows, *factors)):
        raise DataError(f"{folder / _MODEL} does not hold a valid failure model")
    finite = [stored.mean, stored.weights, stored.bias, stored.threshold, *factors]
    sound = all(np.isfinite(number).all() for number in finite)
    sound = sound and all(f.shape == (2,) and (f > 0.0).all() for f in factors)
    if not sound or not (stored.scale > 0.0).all():
        raise DataError(f"{folder / _MODEL} does not hold a valid failure model")
