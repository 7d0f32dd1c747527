"""Search for damping rules on simulated drags, by a separable evolution strategy.

Four families of rules are tuned in the same way: rules of the speed alone, of the hand's intent
alone, of the magnitudes of force and speed, and of intent and speed. A genome is fifteen numbers of
order one.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax.robot import cooperation
from dartjax.robot.cooperation import DampingLaw
from dartjax.simulation._hand_motions import (
    FIXED_HIGH_DAMPING,
    DampingControllers,
    HandMotions,
    damping_controllers,
    simulate_drags,
)

DAMPING_FAMILIES = ("speed", "intent", "force and speed", "intent and speed")
_SPEED, _INTENT, _, _INTENT_SPEED = DAMPING_FAMILIES
_STIFFNESS = (50.0, 150.0, 500.0, 1000.0, 1500.0)
_POPULATION, _PARENTS = 8, 3
_SIZE = 15  # table, most, rate, small force, two speeds, scale of the columns
_START = np.array([2.0, 1.0, -2.0, 2.0, 0.0, -2.0, 2.0, -1.0, -2.0] + [0.0] * 6)
_START_SPREAD, _RESUMED_SPREAD = 0.6, 0.25
# Required ratios to the baselines, with a margin for unseen motions.
_LIMITS = {"work_J": 0.74, "overshoot_mm": 0.7, "tremor_mm": 0.68}

Genome = Float[np.ndarray, "15"]
Measures = dict[str, np.ndarray]


class DampingSearch(NamedTuple):
    """State of the search: the distribution of the genomes of every family."""

    mean: dict[str, Genome]
    spread: dict[str, Genome]


def damping_law_of(genome: Genome, family: str) -> DampingLaw:
    """Build the damping law of a genome; families of one input have equal rows or columns."""
    table = 1.0 / (1.0 + np.exp(-genome[:9].reshape(3, 3)))
    if family == _SPEED:
        table = np.tile(table.mean(axis=1, keepdims=True), (1, 3))
    if family == _INTENT:
        table = np.tile(table.mean(axis=0, keepdims=True), (3, 1))
    most, rate, small, slow, gap, scale = np.exp(0.5 * np.clip(genome[9:], -3.0, 3.0))
    return cooperation.tuned_law(
        table,
        most=min(120.0 * most, 300.0),
        rate=1000.0 * rate,
        small_force=1.5 * small,
        speeds=np.array([0.0, 0.2 * slow, 0.2 * slow + 0.4 * gap]),
        columns=scale * np.array([0.0, 0.5, 1.0]),
        by_intent=_by_intent(family),
    )


def damping_law_numbers(law: DampingLaw) -> dict[str, Any]:
    """Convert a law to rounded plain numbers for storage; see `stored_damping_law`."""
    return {
        "table": np.round(law.rules.table, 3).tolist(),
        "most": float(law.most),
        "rate": float(law.rate),
        "small_force": float(law.small_force),
        "speeds": np.round(law.rules.row_apexes, 4).tolist(),
        "columns": np.round(law.rules.column_apexes, 4).tolist(),
    }


def stored_damping_law(numbers: Mapping[str, Any], family: str) -> DampingLaw:
    """Build a law from stored numbers; other keys are ignored."""
    kept = ("table", "most", "rate", "small_force", "speeds", "columns")
    return cooperation.tuned_law(
        **{key: np.asarray(numbers[key], np.float32) for key in kept},
        by_intent=_by_intent(family),
    )


def start_damping_search(genomes: Mapping[str, Genome] | None = None) -> DampingSearch:
    """Start a search from the default genomes, or a narrower one from given `genomes`."""
    mean = {f: _START.copy() for f in DAMPING_FAMILIES} if genomes is None else dict(genomes)
    spread = _START_SPREAD if genomes is None else _RESUMED_SPREAD
    return DampingSearch(mean, {family: np.full(_SIZE, spread) for family in DAMPING_FAMILIES})


def damping_baselines(motions: HandMotions) -> Measures:
    """Compute the baseline of every measure for each arm of the search.

    The baseline of the work is fixed high damping. The baseline of the other measures is the lowest
    stable damping, with estimated or known stiffness of the arm, whichever gives less.
    """
    lowest = cooperation.lowest_damping()
    laws = [(cooperation.fixed_damping(FIXED_HIGH_DAMPING), False), (lowest, False), (lowest, True)]
    numbers = _mean_over_motions(damping_controllers(laws), motions)
    lower = {key: np.minimum(numbers[key][1], numbers[key][2]) for key in numbers}
    return lower | {"work_J": numbers["work_J"][0]}


def damping_search_step(
    search: DampingSearch, motions: HandMotions, baselines: Measures, *, rng: np.random.Generator
) -> tuple[DampingSearch, dict[str, float]]:
    """Run one generation of the search.

    Also returns the cost of every family's mean genome before the update: the mean ratios to the
    baselines, plus high penalties for ratios above the required ones.
    """
    drawn = {f: _draw(rng, search.mean[f], search.spread[f]) for f in DAMPING_FAMILIES}
    costs = _costs(drawn, motions, baselines)
    moved = {
        f: _moved(search.mean[f], search.spread[f], drawn[f], costs[f]) for f in DAMPING_FAMILIES
    }
    mean = search.mean | {family: mean for family, (mean, _) in moved.items()}
    spread = {family: spread for family, (_, spread) in moved.items()}
    cost_of_mean = {family: float(costs[family][0]) for family in DAMPING_FAMILIES}
    return DampingSearch(mean, spread), cost_of_mean


def _by_intent(family: str) -> float:
    return float(family in (_INTENT, _INTENT_SPEED))


def _draw(
    rng: np.random.Generator, mean: Genome, spread: Genome
) -> Float[np.ndarray, "candidate 15"]:
    """Candidates: the mean and mirrored pairs about it."""
    half = spread * rng.standard_normal((_POPULATION // 2, _SIZE))
    return mean + np.concatenate([np.zeros((1, _SIZE)), half, -half])


def _moved(
    mean: Genome,
    spread: Genome,
    drawn: Float[np.ndarray, "candidate 15"],
    costs: Float[np.ndarray, " candidate"],
) -> tuple[Genome, Genome]:
    """Move mean and spread toward those of the best candidates."""
    best = drawn[np.argsort(costs)[:_PARENTS]]
    weight = np.log(_PARENTS + 0.5) - np.log(np.arange(1, _PARENTS + 1))
    weight /= weight.sum()
    best_spread = np.sqrt(weight @ (best - mean) ** 2)
    return (
        mean + 0.8 * (weight @ (best - mean)),
        np.clip(0.75 * spread + 0.25 * best_spread, 0.05, 1.0),
    )


def _mean_over_motions(controllers: DampingControllers, motions: HandMotions) -> Measures:
    numbers, _ = simulate_drags(controllers, jnp.array(_STIFFNESS), motions)
    return {key: np.asarray(value).mean(axis=2) for key, value in numbers.items()}


def _costs(
    drawn: dict[str, np.ndarray], motions: HandMotions, baselines: Measures
) -> dict[str, np.ndarray]:
    """Cost of every candidate by family."""
    laws = [
        (damping_law_of(genome, family), False)
        for family in DAMPING_FAMILIES
        for genome in drawn[family]
    ]
    numbers = _mean_over_motions(damping_controllers(laws), motions)
    cost = 0.1 * numbers["error_mm"].mean(axis=1) + 0.2 * numbers["swing_mm"].mean(axis=1)
    for key, limit in _LIMITS.items():
        ratio = numbers[key] / baselines[key]
        excess = np.maximum(ratio - limit, 0.0)
        cost = cost + ratio.mean(axis=1) + 5.0 * (excess.mean(axis=1) + excess.max(axis=1))
    return dict(zip(DAMPING_FAMILIES, cost.reshape(len(DAMPING_FAMILIES), -1), strict=True))
