"""Place the base of the hybrid robot next to a patient so that it reaches every needle path.

  python -m experiments.reconstruct --demo --out=runs/demo
  python -m experiments.base_placement --run=runs/demo

The paths are those of the first subject of the run, with the patient prone. Without --run they are
those of the packaged mean shapes, T1 to L5, and the record says so. The compared placements are:
the initial placement; the base moved by gradient descent, like a cart with a lift; the same with a
tilted table; and the base moved separately for every level. Writes tables.md, placement.png,
margins.png, trajectory.png, and every path to metrics.json.
"""

import pathlib

import numpy as np

from dartjax import simulation
from dartjax.cli import launch
from dartjax.robot import arms
from dartjax.simulation import BasePlanner, PlannedPatient
from experiments.base_placement import report, tables
from experiments.base_placement.settings import Settings
from experiments.base_placement.tables import CART, EVERY_LEVEL, FIRST, TABLE

_MAY_MOVE = {CART: arms.CART, TABLE: (True,) * 6}


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Optimise the placements, follow the paths, displace the patient, and report."""
    patient = load_patient(settings.run)
    planner = BasePlanner(patient, arms.spine_hybrid(), settings.steps)
    with launch.progress("base placement", 5) as step:
        reaches = {FIRST: planner.reach(simulation.prone_placement(patient))}
        step(FIRST)
        for name, may_move in _MAY_MOVE.items():
            placed = planner.place(patient.paths, may_move)
            reaches[name] = planner.reach(placed.T_base_patient)
            step(name)
        reaches[EVERY_LEVEL] = planner.reach_level_by_level()
        step(EVERY_LEVEL)
        displaced = simulation.reach_when_displaced(
            planner,
            reaches[CART],
            count=settings.draws,
            shift_mm=settings.patient_shift_mm,
            turn_deg=settings.patient_turn_deg,
            seed=ctx.seed,
        )
        trajectories, wire_tip_mm = planner.follow(reaches[CART])
        step("trajectories")

    rows = [tables.placement_row(name, reach) for name, reach in reaches.items()]
    durations = np.asarray(trajectories.duration)
    reached = durations[reaches[CART].reached]
    summary = {
        "paths": len(patient.names),
        **tables.displaced_summary(displaced),
        "wire_tip_error_max_mm": wire_tip_mm,
        **tables.placement_summary(rows),
        "trajectory_mean_seconds": float(reached.mean()) if len(reached) else np.nan,
    }
    cases = tables.path_cases(patient, reaches, durations)
    record = ctx.record(n_vertebrae=len(patient.levels), nsd_tolerance_mm=None, **patient.record)
    report.write(ctx.out, record, patient, reaches, rows, trajectories)
    ctx.save_metrics(record, summary, cases)


def load_patient(run: str | None) -> PlannedPatient:
    """Load the patient of a run of `reconstruct`, or make one of the mean shapes."""
    if run:
        return simulation.read_planned_patient(pathlib.Path(run))
    return simulation.mean_shape_patient()


if __name__ == "__main__":
    launch.run(main, Settings)
