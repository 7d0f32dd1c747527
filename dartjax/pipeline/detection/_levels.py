"""Names of the levels of a column of vertebrae.

A hidden Markov chain over the levels, from head to foot: what the detector says of each vertebra,
and how the level changes from one vertebra to the next, with the distance that the population's
spine has there. Supernumerary levels (T13, L6), a missing T12 and vertebrae that were not detected
are possible at a price. Viterbi gives the names, the forward pass their probability.
"""

import dataclasses
from collections.abc import Collection, Sequence

import jax
import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from dartjax import ssm
from dartjax.models import DETECTED_LEVELS

NAMED_PROBABILITY = 0.9  # least posterior of the names; below, the levels are not named
LEVEL_TRUST = 0.5  # exponent of the detector's probabilities: two views are not independent
# A detector that takes one level for the next does so all along a column: the evidence of a column
# counts as that of three vertebrae at most.
_LOOKS = 3.0
_RARE = 0.03  # probability of T13, of L6 and of a missing T12
_NOT_DETECTED = 0.1  # probability that a vertebra between two others was not detected
_MOST_SKIPPED = 3  # vertebrae that were not detected between two others
_SPACING_SIGMA = 0.12  # of the log distance of neighbours: people differ in size and in shape
_C7_TO_T1_MM = 19.0


@dataclasses.dataclass(frozen=True)
class NamedLevels:
    """Names of a column, from head to foot, with the posterior probability of all names together,
    and of each name alone."""

    levels: tuple[str, ...]
    probability: float
    each: Float[np.ndarray, " n"]

    @property
    def reliable(self) -> bool:
        """Return whether the names can be relied on."""
        return self.probability >= NAMED_PROBABILITY


def name_levels(
    log_level: Float[np.ndarray, "n level"],
    centers: Float[np.ndarray, "n 3"],
    prior: ssm.SpinePrior,
    *,
    allowed: Collection[str] | None = None,
) -> NamedLevels:
    """Name a column of vertebrae, given from head to foot.

    `log_level` are the summed log probabilities of `models.DETECTED_LEVELS`, `centers` the body
    centres (world mm); `allowed` limits the names to these levels. ValueError if there are more
    vertebrae than names for them.
    """
    emission = LEVEL_TRUST * np.asarray(log_level, float)
    if allowed is not None:
        outside = [name not in allowed for name in DETECTED_LEVELS]
        emission[:, outside] = -np.inf
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    possible = level_changes(prior)
    changes = [_changes(distance, possible) for distance in steps]
    return _solved(emission, changes)


def _solved(
    emission: Float[np.ndarray, "n level"], changes: list[Float[np.ndarray, "level level"]]
) -> NamedLevels:
    """Find the best names (Viterbi), and their posterior probability (forward and backward
    recursions, in logarithms) when the evidence counts as a few independent looks."""
    path = _best_path(emission, changes)
    doubted = emission * min(1.0, _LOOKS / len(emission))
    forward, backward = _recursions(doubted, changes)
    total = float(np.asarray(logsumexp(forward[-1])))
    steps = sum(changes[i][path[i], path[i + 1]] for i in range(len(changes)))
    own = float(doubted[np.arange(len(path)), path].sum() + steps)
    each = np.exp(forward + backward - total)[np.arange(len(path)), path]
    names = tuple(DETECTED_LEVELS[i] for i in path)
    return NamedLevels(names, float(np.exp(own - total)), each)


def _best_path(
    emission: Float[np.ndarray, "n level"], changes: list[Float[np.ndarray, "level level"]]
) -> list[int]:
    best, pointers = emission[0], []
    for own, change in zip(emission[1:], changes, strict=True):
        scores = best[:, None] + change
        pointers.append(np.argmax(scores, axis=0))
        best = np.max(scores, axis=0) + own
    if not np.isfinite(best.max()):
        count = len(emission)
        raise ValueError(f"{count} vertebrae cannot be named with the levels that are allowed")
    path = [int(np.argmax(best))]
    for pointer in pointers[::-1]:
        path.append(int(pointer[path[-1]]))
    return path[::-1]


def _recursions(
    emission: Float[np.ndarray, "n level"], changes: list[Float[np.ndarray, "level level"]]
) -> tuple[Float[np.ndarray, "n level"], Float[np.ndarray, "n level"]]:
    """Log probability of all evidence down to each vertebra with its level, and of that below."""
    forward, backward = emission.copy(), np.zeros_like(emission)
    for i in range(1, len(emission)):
        forward[i] += logsumexp(forward[i - 1][:, None] + changes[i - 1], axis=0)
    for i in range(len(emission) - 2, -1, -1):
        onward = emission[i + 1] + backward[i + 1]
        backward[i] = logsumexp(changes[i] + onward[None], axis=1)
    return forward, backward


def level_changes(prior: ssm.SpinePrior) -> list[tuple[int, int, float, float]]:
    """List how the level can change from one detected vertebra to the next: the indices of both in
    DETECTED_LEVELS, their distance in the mean of the population (mm), and the log probability."""
    spacing = _spacing_mm(prior)
    return [
        (row, DETECTED_LEVELS.index(lower), length, float(np.log(probability)))
        for row, level in enumerate(DETECTED_LEVELS)
        for lower, length, probability in _below(level, spacing)
    ]


def _changes(
    distance: float, possible: Sequence[tuple[int, int, float, float]]
) -> Float[np.ndarray, "level level"]:
    """Log probability of the level below (column) given a level (row), and of their distance."""
    result = np.full((len(DETECTED_LEVELS),) * 2, -np.inf)
    for row, column, length, log_probability in possible:
        off = np.log(max(distance, 1e-3) / length) / _SPACING_SIGMA
        value = log_probability - 0.5 * off**2
        result[row, column] = np.logaddexp(result[row, column], value)
    return result


def _below(level: str, spacing: dict[str, float]) -> list[tuple[str, float, float]]:
    """Levels that can be the next one detected below a level: name, distance, probability."""
    found: list[tuple[str, float, float]] = []
    reached = [(level, 0.0, 1.0)]
    for _ in range(_MOST_SKIPPED + 1):
        reached = [
            (lower, length + spacing[lower], p * q)
            for name, length, p in reached
            for lower, q in _next(name)
        ]
        found += [(name, length, p * (1.0 - _NOT_DETECTED)) for name, length, p in reached]
        reached = [(name, length, p * _NOT_DETECTED) for name, length, p in reached]
    return found


def _next(level: str) -> list[tuple[str, float]]:
    """Levels of the vertebra below one, with their probabilities."""
    if level == "T11":
        return [("T12", 1.0 - _RARE), ("L1", _RARE)]
    if level == "T12":
        return [("L1", 1.0 - _RARE), ("T13", _RARE)]
    if level == "T13":
        return [("L1", 1.0)]
    if level == "L5":
        return [("L6", _RARE)]
    index = DETECTED_LEVELS.index(level) + 1
    return [(DETECTED_LEVELS[index], 1.0)] if index < len(DETECTED_LEVELS) else []


def _spacing_mm(prior: ssm.SpinePrior) -> dict[str, float]:
    """Distance of every level from the one above, in the mean of the population, mm."""
    origins = np.asarray(jax.vmap(lambda frame: frame.translation())(ssm.spine_frames(prior.mean)))
    steps = np.linalg.norm(np.diff(origins, axis=0), axis=1)
    spacing = dict(zip(ssm.SPINE_LEVELS[1:], steps.tolist(), strict=True))
    return {**spacing, "T1": _C7_TO_T1_MM, "T13": spacing["L1"], "C7": _C7_TO_T1_MM}
