"""Simulate the hybrid spine robot of Li, Du and Yu (2020): kinematics, calibration, tool weight.

  python -m experiments.hybrid_robot

The studies are: forward and inverse kinematics of 100,000 poses; the 14 legs of tables 4 to 6 with
robots that have machining errors, before and after self-calibration, compared with the noise floor;
the parameters that the measurements identify; the weight compensation of table 7; and the six-leg
guide robot. Writes tables.md, workspace.png, legs.png, weight.png, report.html, and every leg to
metrics.json.
"""

import jax

from dartjax import simulation
from dartjax.cli import launch
from experiments.hybrid_robot import report, tables
from experiments.hybrid_robot.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Run all studies, then write tables and figures."""
    with launch.progress("hybrid robot", 5) as step:
        with jax.enable_x64(True):
            summary = simulation.hybrid_round_trips(ctx.seed, settings.poses)
            step("round trips")
            summary |= simulation.guide_round_trips(ctx.seed)
            step("guide robot")
            plan = simulation.calibration_plan(ctx.seed)
            errors = simulation.simulate_drive_errors(ctx.seed, settings.robots, plan)
            seen = simulation.calibration_identifiability(plan)
            ideal = simulation.ideal_leg_lengths()
            reach = simulation.hybrid_reach_map()
            step("legs and calibration")
        float32_mm, float32_rad = simulation.hybrid_round_trip_float32(ctx.seed, settings.poses)
        step("single precision")
        residuals = simulation.compensation_residuals(ctx.seed)
        step("weight of the tool")

    summary |= {"round_trip_float32_max_mm": float32_mm, "round_trip_float32_max_rad": float32_rad}
    summary |= tables.leg_summary(ideal, errors) | tables.rank_summary(seen)
    summary |= tables.weight_summary(residuals)
    legs = tables.leg_rows(ideal, errors)
    record = ctx.record(
        dataset="simulated robots",
        dataset_kind="synthetic",
        subjects=[],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    report.write_tables(
        ctx.out / "tables.md",
        record,
        summary,
        legs,
        tables.weight_rows(residuals),
        tables.parameter_rows(seen),
    )
    report.write_page(ctx.out, record, summary, legs, report.draw(reach, errors, residuals))
    ctx.save_metrics(record, summary, legs)


if __name__ == "__main__":
    launch.run(main, Settings)
