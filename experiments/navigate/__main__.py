"""Simulate two-plane navigation of wires in pedicles from rendered X-rays (Li, Du, Yu 2020).

  python -m experiments.navigate
  python -m experiments.navigate --cohort=FOLDER[,FOLDER] --levels=L1-L5 --repeats=3
  python -m experiments.navigate --run=FOLDER     also uses plans of a `reconstruct` run

For every vertebra, AP and lateral views are rendered, each calibrated from an image of a plate. For
every repeat, the robot holds the bi-planar target in both views, the path is marked in the images,
and a tracker closes the control loop of a robot with structural errors. The wire is then placed in
the true anatomy, checked in both views, and graded after Gertzbein and Robbins. The plan is the
best corridor in the true bone. Where it leaves less than 1.5 mm around a 5 mm cylinder, no wire is
placed and the table says so. Writes tables.md, figures, report.html, and every placement to
metrics.json.
"""

from dartjax import data, simulation
from dartjax.cli import launch
from experiments.navigate import cohort, report
from experiments.navigate.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Navigate wires in every vertebra, study the closed loop, then write tables and figures."""
    planned = cohort.planned_paths(settings.run)
    levels = tuple(data.parse_levels(settings.levels)) if settings.levels else ()
    cases, count = [], 0
    found = simulation.WireNavigation()
    for case in cohort.load_cases(settings, levels):
        cases.append(cohort.without_voxels(case))
        vertebrae = simulation.true_vertebrae(case, levels)
        with launch.progress(f"wires in {case.subject}", len(vertebrae)) as step:
            for truth in vertebrae:
                own = simulation.navigate_wires(
                    case,
                    truth,
                    planned.get((case.subject, truth.level)),
                    seed=ctx.seed,
                    number=count,
                    repeats=settings.repeats,
                    num_points=settings.targets,
                    click_px=settings.click_px,
                    bolus=settings.bolus,
                )
                found = found.merged(own)
                count += 1
                step(truth.level)
    with launch.progress("closed loop", 1) as step:
        loop = simulation.closed_loop_study(settings.robots, ctx.seed)
        step(f"{settings.robots} robots")
    record = ctx.record(
        dataset=" + ".join(sorted({case.dataset for case in cases})),
        dataset_kind=cases[0].dataset_kind,
        subjects=[case.subject for case in cases],
        n_vertebrae=count,
        ssm_excludes=simulation.excluded(cases),
        nsd_tolerance_mm=None,
        ssm_leak=cohort.planned_by_leak(settings.run),
    )
    summary = simulation.wire_navigation_summary(found) | report.loop_summary(loop)
    report.write(ctx.out, record, summary, found, loop)
    ctx.save_metrics(record, summary, found.rows)


if __name__ == "__main__":
    launch.run(main, Settings)
