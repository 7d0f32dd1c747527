"""Rules for the damping, found on training tasks: a separable evolution strategy.

  python -m experiments.admittance_tuning --generations=30

Four families are tuned alike: rules over the speed alone, over the hand's intent alone, over the
sizes of force and speed, and over intent and speed. Leaves tuned.json (admittance/laws.json is
one, and `robot.intent_rules` its last family) and the course of the search in metrics.json.
"""

import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags

from dartjax import cli, simulation
from dartjax.robot import cooperation
from dartjax.robot.cooperation import DampingLaw
from dartjax.simulation import Controllers, Tasks

_GENERATIONS = flags.DEFINE_integer("generations", 30, "Generations of the search.", lower_bound=1)
_RESUME = flags.DEFINE_string("resume", None, "tuned.json of an earlier search to go on from.")

SPEED, INTENT, FORCE_SPEED, INTENT_SPEED = FAMILIES = (
    "speed",
    "intent",
    "force and speed",
    "intent and speed",
)
TRAINING_SEED = 1000  # tasks of the search; no other experiment draws from it
_STIFFNESS = (50.0, 150.0, 500.0, 1000.0, 1500.0)
_PER_KIND, _POPULATION, _PARENTS = 3, 8, 3
_SIZE = 15  # table, most, rate, small force, two speeds, scale of the columns
_START = np.array([2.0, 1.0, -2.0, 2.0, 0.0, -2.0, 2.0, -1.0, -2.0] + [0.0] * 6)


def law_of(genome: np.ndarray, family: str) -> DampingLaw:
    """The damping law of fifteen numbers, all of order one."""
    table = 1.0 / (1.0 + np.exp(-genome[:9].reshape(3, 3)))
    if family == SPEED:
        table = np.tile(table.mean(axis=1, keepdims=True), (1, 3))
    if family == INTENT:
        table = np.tile(table.mean(axis=0, keepdims=True), (3, 1))
    most, rate, small, slow, gap, scale = np.exp(0.5 * np.clip(genome[9:], -3.0, 3.0))
    return cooperation.tuned_law(
        table,
        most=min(120.0 * most, 300.0),
        rate=1000.0 * rate,
        small_force=1.5 * small,
        speeds=np.array([0.0, 0.2 * slow, 0.2 * slow + 0.4 * gap]),
        columns=scale * np.array([0.0, 0.5, 1.0]),
        by_intent=float(family in (INTENT, INTENT_SPEED)),
    )


def tuned_laws() -> dict[str, DampingLaw]:
    """The laws of the last search, by family."""
    text = (pathlib.Path(__file__).parents[1] / "admittance" / "laws.json").read_text(
        encoding="utf-8"
    )
    kept = ("table", "most", "rate", "small_force", "speeds", "columns")
    return {
        family: cooperation.tuned_law(
            **{key: np.asarray(numbers[key], np.float32) for key in kept},
            by_intent=float(family in (INTENT, INTENT_SPEED)),
        )
        for family, numbers in json.loads(text).items()
    }


def main(ctx: cli.RunContext) -> None:
    """Search, and write what was found."""
    tasks = simulation.draw_tasks(np.random.default_rng(TRAINING_SEED), _PER_KIND)
    rng = np.random.default_rng(ctx.seed)
    means = {family: _START.copy() for family in FAMILIES}
    if _RESUME.value:
        with open(_RESUME.value, encoding="utf-8") as file:
            means = {k: np.array(v["genome"]) for k, v in json.load(file).items()}
    spreads = {family: np.full(_SIZE, 0.25 if _RESUME.value else 0.6) for family in FAMILIES}
    baseline = _baselines(tasks)
    course = []
    with cli.progress("search", _GENERATIONS.value) as step:
        for generation in range(_GENERATIONS.value):
            drawn = {f: _draw(rng, means[f], spreads[f]) for f in FAMILIES}
            costs = _costs(drawn, tasks, baseline)
            for family in FAMILIES:
                _move(means, spreads, family, drawn[family], costs[family])
            best = {family: float(costs[family][0]) for family in FAMILIES}  # of the mean
            course.append({"generation": generation, **best})
            step(", ".join(f"{family} {cost:.3f}" for family, cost in best.items()))
    found = {f: {"genome": means[f].tolist(), **_numbers(law_of(means[f], f))} for f in FAMILIES}
    (ctx.out / "tuned.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    record = ctx.record(
        dataset="simulated drags, training tasks",
        dataset_kind="synthetic",
        subjects=[],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    ctx.save_metrics(record, course[-1], course)


def _numbers(law: DampingLaw) -> dict[str, Any]:
    return {
        "table": np.round(law.rules.table, 3).tolist(),
        "most": float(law.most),
        "rate": float(law.rate),
        "small_force": float(law.small_force),
        "speeds": np.round(law.rules.row_apexes, 4).tolist(),
        "columns": np.round(law.rules.column_apexes, 4).tolist(),
    }


def _draw(rng: np.random.Generator, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The mean itself and mirrored pairs about it."""
    half = spread * rng.standard_normal((_POPULATION // 2, _SIZE))
    return mean + np.concatenate([np.zeros((1, _SIZE)), half, -half])


def _move(
    means: dict[str, np.ndarray],
    spreads: dict[str, np.ndarray],
    family: str,
    drawn: np.ndarray,
    costs: np.ndarray,
) -> None:
    """The mean goes to its best neighbours, the spread toward theirs."""
    best = drawn[np.argsort(costs)[:_PARENTS]]
    weight = np.log(_PARENTS + 0.5) - np.log(np.arange(1, _PARENTS + 1))
    weight /= weight.sum()
    seen = np.sqrt(weight @ (best - means[family]) ** 2)
    means[family] = means[family] + 0.8 * (weight @ (best - means[family]))
    spreads[family] = np.clip(0.75 * spreads[family] + 0.25 * seen, 0.05, 1.0)


def _baselines(tasks: Tasks) -> dict[str, np.ndarray]:
    """By measure (arm,): what the controllers are held against."""
    lowest = cooperation.lowest_damping()
    given = [(cooperation.fixed_damping(62.6), False), (lowest, False), (lowest, True)]
    numbers = _mean_over_tasks(simulation.controllers(given), tasks)
    harder = {key: np.minimum(numbers[key][1], numbers[key][2]) for key in numbers}
    return harder | {"work_J": numbers["work_J"][0]}


def _mean_over_tasks(given: Controllers, tasks: Tasks) -> dict[str, np.ndarray]:
    numbers, _ = simulation.drag_all(given, jnp.array(_STIFFNESS), tasks)
    return {key: np.asarray(value).mean(axis=2) for key, value in numbers.items()}


def _costs(
    drawn: dict[str, np.ndarray], tasks: Tasks, baseline: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Cost of every candidate by family: mean ratios to the baselines, and dear fines for the
    worst arm beyond what is asked (with a margin, for tasks not seen)."""
    laws = [(law_of(genome, family), False) for family in FAMILIES for genome in drawn[family]]
    numbers = _mean_over_tasks(simulation.controllers(laws), tasks)
    ratio = {k: numbers[k] / baseline[k] for k in ("work_J", "overshoot_mm", "tremor_mm")}
    limits = {"work_J": 0.74, "overshoot_mm": 0.7, "tremor_mm": 0.68}
    cost = 0.1 * numbers["error_mm"].mean(axis=1) + 0.2 * numbers["swing_mm"].mean(axis=1)
    for key, limit in limits.items():
        fine = np.maximum(ratio[key] - limit, 0.0)
        cost = cost + ratio[key].mean(axis=1) + 5.0 * (fine.mean(axis=1) + fine.max(axis=1))
    return dict(zip(FAMILIES, cost.reshape(len(FAMILIES), -1), strict=True))


if __name__ == "__main__":
    cli.run(main)
