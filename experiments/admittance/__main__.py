"""A hand drags the robot: how damping laws do on motions nobody tuned them on.

  python -m experiments.admittance

Simulated operators with arms of 50 to 1500 N/m reach, trace and stop. Compared: fixed high and
low damping, the lowest stable damping (rho = 0; by the estimated and by the true stiffness of the
arm), classical fuzzy rules over the sizes of force and speed, and four families of rules tuned on
other tasks. Leaves tables.md, ratios.png, traces.png, rules.png and every motion in metrics.json.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dartjax import cli, simulation
from dartjax.robot import cooperation
from dartjax.robot.cooperation import DampingLaw
from dartjax.simulation import KINDS
from experiments.admittance import report as admittance_report
from experiments.admittance_tuning import __main__ as admittance_tuning

_PER_KIND = flags.DEFINE_integer("tasks_per_kind", 8, "Motions of each kind.", lower_bound=1)
_STIFFNESS = flags.DEFINE_list(
    "stiffness", ["50", "100", "200", "400", "700", "1000", "1500"], "Arms, N/m."
)

HIGH, LOW, RHO0, TRUE_RHO0 = "fixed high", "fixed low", "rho = 0", "rho = 0, arm known"
CLASSICAL, OURS = "classical fuzzy rules", "intent and speed"
HIGH_DAMPING, LOW_DAMPING = 62.6, 10.4  # N s/m
SWINGING_MM = 5.0  # peak to peak in the last half second: the robot has not come to rest
Numbers = Mapping[str, np.ndarray]  # by measure: (controller, arm, task)


def main(ctx: cli.RunContext) -> None:
    """Drag with every controller, arm and task, and compare."""
    arms = _arms()
    tasks = simulation.draw_tasks(np.random.default_rng([ctx.seed, 7]), _PER_KIND.value)
    laws = all_laws()
    with cli.progress("drags") as step:
        given = simulation.controllers(list(laws.values()))
        found, drags = jax.block_until_ready(
            simulation.drag_all(given, jnp.asarray(arms, jnp.float32), tasks)
        )
        step(f"{len(laws)} controllers, {len(arms)} arms, {len(tasks.goal)} motions")
    numbers = {key: np.asarray(value) for key, value in found.items()}
    numbers["stable"] = np.isfinite(numbers["swing_mm"]) & (numbers["swing_mm"] < SWINGING_MM)
    rows = table(list(laws), arms, numbers)
    record = ctx.record(
        dataset="simulated drags",
        dataset_kind="synthetic",
        subjects=[],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    summary = summarise(rows) | {"motion_below_threshold_mm": motion_below_threshold()}
    admittance_report.write_tables(ctx.out / "tables.md", record, rows, summary)
    admittance_report.draw_ratios(ctx.out / "ratios.png", rows)
    shown = [list(laws).index(name) for name in (HIGH, RHO0, OURS)]
    stop = (KINDS.index("stop") + 1) * _PER_KIND.value - 1
    admittance_report.draw_traces(ctx.out / "traces.png", drags, tasks, shown, arms, stop)
    admittance_report.draw_rules(ctx.out / "rules.png", laws[OURS][0], laws[CLASSICAL][0])
    ctx.save_metrics(record, summary, _cases(list(laws), arms, numbers))


def all_laws() -> dict[str, tuple[DampingLaw, bool]]:
    """Every law by name, and whether it is told the arm's true stiffness."""
    lowest = cooperation.lowest_damping()
    fixed = {
        HIGH: (cooperation.fixed_damping(HIGH_DAMPING), False),
        LOW: (cooperation.fixed_damping(LOW_DAMPING), False),
        RHO0: (lowest, False),
        TRUE_RHO0: (lowest, True),
        CLASSICAL: (cooperation.classical_rules(), False),
    }
    tuned = admittance_tuning.tuned_laws()
    others = {f"tuned, {name}": (law, False) for name, law in tuned.items() if name != OURS}
    return fixed | others | {OURS: (cooperation.intent_rules(), False)}


def table(names: list[str], arms: np.ndarray, numbers: Numbers) -> list[dict[str, Any]]:
    """Means over the tasks by controller and arm, and their ratios to the baselines."""
    mean = {key: value.mean(axis=2) for key, value in numbers.items()}
    rows = []
    for i, name in enumerate(names):
        for j, arm in enumerate(arms):
            row = {"controller": name, "arm [N/m]": float(arm)}
            row |= {
                "work [J]": mean["work_J"][i, j],
                "overshoot [mm]": mean["overshoot_mm"][i, j],
                "tremor [mm]": mean["tremor_mm"][i, j],
                "error at the end [mm]": mean["error_mm"][i, j],
                "largest swing [mm]": numbers["swing_mm"][i, j].max(),
                "stable": float(mean["stable"][i, j]),
            }
            for label, key, other in (
                ("work / high", "work_J", HIGH),
                ("overshoot / rho 0", "overshoot_mm", RHO0),
                ("tremor / rho 0", "tremor_mm", RHO0),
                ("overshoot / rho 0 known", "overshoot_mm", TRUE_RHO0),
                ("tremor / rho 0 known", "tremor_mm", TRUE_RHO0),
            ):
                row[label] = mean[key][i, j] / mean[key][names.index(other), j]
            rows.append(row)
    return rows


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst arm of every measure: ours by plain names, others by prefix."""
    measures = {
        "work_ratio_to_high_damping_worst": "work / high",
        "stop_error_ratio_to_rho0_worst": "overshoot / rho 0",
        "tremor_ratio_to_rho0_worst": "tremor / rho 0",
        "stop_error_ratio_to_rho0_arm_known_worst": "overshoot / rho 0 known",
        "tremor_ratio_to_rho0_arm_known_worst": "tremor / rho 0 known",
    }
    summary: dict[str, Any] = {}
    for name in dict.fromkeys(row["controller"] for row in rows):
        own = [row for row in rows if row["controller"] == name]
        words = name.replace("=", "").replace(",", "").split()
        prefix = "" if name == OURS else "_".join(words) + "_"
        summary |= {f"{prefix}{k}": max(row[label] for row in own) for k, label in measures.items()}
        summary[f"{prefix}all_stable"] = all(row["stable"] == 1.0 for row in own)
    return summary


def motion_below_threshold() -> float:
    """Farthest a robot at rest goes in a second under a force just below the threshold, mm."""
    law = cooperation.Admittance()
    push = 0.999 * law.threshold * jnp.array([0.6, -0.64, 0.48])

    def step(state: tuple, _: None) -> tuple[tuple, None]:
        filtered, velocity, position = state
        filtered = cooperation.filter_step(filtered, push, law)
        force = cooperation.dead_band(filtered.second, law.threshold)
        velocity = cooperation.admittance_step(velocity, force, jnp.asarray(LOW_DAMPING), law)[0]
        return (filtered, velocity, position + law.step * velocity), None

    zero = jnp.zeros(3)
    start = (cooperation.ForceFilter(zero, zero), zero, zero)
    (_, _, position), _ = jax.lax.scan(step, start, length=1000)
    return float(jnp.linalg.norm(position))


def _arms() -> np.ndarray:
    try:
        arms = np.array([float(value) for value in _STIFFNESS.value])
    except ValueError as error:
        raise flags.Error(f"--stiffness={','.join(_STIFFNESS.value)}: give numbers") from error
    if not len(arms) or not np.all((arms >= 20.0) & (arms <= 2000.0)):
        raise flags.Error("--stiffness: give arms of 20 to 2000 N/m")
    return arms


def _cases(names: list[str], arms: np.ndarray, numbers: Numbers) -> list[dict[str, Any]]:
    return [
        {
            "controller": name,
            "arm_N_per_m": float(arm),
            "task": task,
            "kind": KINDS[task // _PER_KIND.value],
            **{key: value[i, j, task].item() for key, value in numbers.items()},
        }
        for i, name in enumerate(names)
        for j, arm in enumerate(arms)
        for task in range(len(KINDS) * _PER_KIND.value)
    ]


if __name__ == "__main__":
    cli.run(main)
