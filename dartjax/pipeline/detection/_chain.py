"""The best column of vertebrae among possible ones: a chain from head to foot whose steps are those
of a spine."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dartjax import ssm
from dartjax.pipeline.detection._levels import LEVEL_TRUST, level_changes

_SPACING_SIGMA = 0.15  # of the log distance of neighbours, with the errors of detected centres
_SLOPE_SIGMA = (0.35, 0.65)  # of a step from head to foot, to the side and in the sagittal plane
_LEAST_STEP_MM = 8.0
_STEP_COST = 0.5  # a vertebra of a chain must be likelier than this
_MOST_OF_A_LEVEL = 3.0  # log odds that a level adds or takes at most


class Candidates(NamedTuple):
    """Possible vertebrae: the place of the body (world mm, patient's axes), how much likelier it is
    a vertebra than not (logarithm), and the log probability of every level."""

    places: Float[np.ndarray, "n 3"]
    gain: Float[np.ndarray, " n"]
    log_level: Float[np.ndarray, "n level"]


def best_chain(candidates: Candidates, prior: ssm.SpinePrior) -> list[int]:
    """Find the column of the largest total gain, from head to foot (Viterbi over candidates and
    levels). Empty if no candidate has a gain."""
    order = np.argsort(-candidates.places[:, 2], kind="stable")
    places, changes = candidates.places[order], level_changes(prior)
    own = candidates.gain[order][:, None] - _STEP_COST
    own = own + LEVEL_TRUST * _above_chance(candidates.log_level[order])
    best, before = own.copy(), np.full((*own.shape, 2), -1)
    for q in range(1, len(places)):
        arrive, source = _arrivals(best[:q], places[:q], places[q], changes)
        better = arrive > 0.0
        best[q] = own[q] + np.where(better, arrive, 0.0)
        before[q] = np.where(better[:, None], source, -1)
    if not len(places) or best.max() <= 0.0:
        return []
    at = np.unravel_index(np.argmax(best), best.shape)
    chain = []
    while at[0] >= 0:
        chain.append(int(order[at[0]]))
        at = tuple(before[at])
    return chain[::-1]


def _above_chance(log_level: Float[np.ndarray, "n level"]) -> Float[np.ndarray, "n level"]:
    """Log of the probability of each level over that of a guess, bounded on both sides."""
    shares = np.exp(log_level - log_level.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return np.clip(np.log(shares * shares.shape[1] + 1e-9), -_MOST_OF_A_LEVEL, _MOST_OF_A_LEVEL)


def _arrivals(
    best: Float[np.ndarray, "p level"],
    places: Float[np.ndarray, "p 3"],
    place: Float[np.ndarray, "3"],
    changes: list[tuple[int, int, float, float]],
) -> tuple[Float[np.ndarray, " level"], Int[np.ndarray, "level 2"]]:
    """Find the best chain that ends in a candidate above one place, for every level of the place:
    its value with the step, and (candidate, level) of its end."""
    num_levels = best.shape[1]
    value, source = np.full(num_levels, -np.inf), np.full((num_levels, 2), -1)
    step = place[None] - places
    distance = np.linalg.norm(step, axis=1)
    usable = -step[:, 2] > _LEAST_STEP_MM
    if not usable.any():
        return value, source
    slope = step[:, :2] / np.maximum(distance, 1e-6)[:, None] / np.array(_SLOPE_SIGMA)
    bend = np.where(usable, -0.5 * (slope**2).sum(1), -np.inf)
    for level, lower, length, log_probability in changes:
        off = np.log(np.maximum(distance, 1e-3) / length) / _SPACING_SIGMA
        total = best[:, level] + bend + log_probability - 0.5 * off**2
        p = int(np.argmax(total))
        if total[p] > value[lower]:
            value[lower], source[lower] = total[p], (p, level)
    return value, source
