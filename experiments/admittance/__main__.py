"""Compare damping laws for hand guiding of the robot, on unseen motions.

  python -m experiments.admittance

Simulated operators, with arms of 50 to 1500 N/m stiffness, drag the robot in reaching, tracing and
stopping motions. The compared laws are: fixed high damping, fixed low damping, the lowest stable
damping (rho = 0; from the estimated or the true stiffness of the arm), classical fuzzy rules of the
magnitudes of force and speed, and four families of rules that were tuned on other motions. Writes
tables.md, ratios.png, traces.png, rules.png, and every motion to metrics.json.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import simulation
from dartjax.cli import launch
from dartjax.data import DataError
from dartjax.simulation import HAND_MOTION_KINDS
from experiments.admittance import report, tables
from experiments.admittance.laws import compared_laws
from experiments.admittance.settings import Settings
from experiments.admittance.tables import CLASSICAL, HIGH, OURS, RHO0


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Simulate every controller, arm and motion, and compare the controllers."""
    arms = parse_stiffness(settings.stiffness)
    motions = simulation.random_hand_motions(
        np.random.default_rng([ctx.seed, 7]), settings.tasks_per_kind
    )
    laws = compared_laws()
    names = list(laws)
    with launch.progress("drags") as step:
        controllers = simulation.damping_controllers(list(laws.values()))
        found, drags = jax.block_until_ready(
            simulation.simulate_drags(controllers, jnp.asarray(arms, jnp.float32), motions)
        )
        step(f"{len(laws)} controllers, {len(arms)} arms, {len(motions.goal)} motions")
    numbers = {key: np.asarray(value) for key, value in found.items()}
    numbers["stable"] = simulation.came_to_rest(numbers["swing_mm"])

    rows = tables.ratio_rows(names, arms, numbers)
    summary = tables.summarise(rows)
    summary["motion_below_threshold_mm"] = simulation.motion_below_threshold()
    record = ctx.record(
        dataset="simulated drags",
        dataset_kind="synthetic",
        subjects=[],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    report.write_tables(ctx.out / "tables.md", record, rows, summary)
    report.draw_ratios(ctx.out / "ratios.png", rows)
    shown = [names.index(name) for name in (HIGH, RHO0, OURS)]
    last_stop = (HAND_MOTION_KINDS.index("stop") + 1) * settings.tasks_per_kind - 1
    report.draw_traces(ctx.out / "traces.png", drags, motions, shown, arms, last_stop)
    report.draw_rules(ctx.out / "rules.png", laws[OURS][0], laws[CLASSICAL][0])
    cases = tables.cases(names, arms, numbers, settings.tasks_per_kind)
    ctx.save_metrics(record, summary, cases)


def parse_stiffness(values: Sequence[str]) -> np.ndarray:
    """Parse the stiffness of the arms, N/m. DataError for invalid numbers."""
    try:
        arms = np.array([float(value) for value in values])
    except ValueError as error:
        raise DataError(f"--stiffness={','.join(values)}: give numbers") from error
    if not len(arms) or not np.all((arms >= 20.0) & (arms <= 2000.0)):
        raise DataError("--stiffness: give values from 20 to 2000 N/m")
    return arms


if __name__ == "__main__":
    launch.run(main, Settings)
