"""Measure how reconstructions degrade with errors of cameras, views, landmarks and masks.

  python -m experiments.robustness --cohort=FOLDER --levels=T3,T6,T9,T12,L1 --repeats=2
      Computes all curves on these levels of every subject in VerSe layout.
  python -m experiments.robustness --cohort=FOLDER --curves=cameras
      Computes the curves of a wrong second view (0-3 deg, 0-10 mm), with the given cameras and
      with cameras refined together with all vertebrae of the scene.

One quantity is degraded at a time; views, other errors and random numbers stay the same. Landmarks
and masks are from a detector's error model, and starts are computed from them
(docs/reconstruction.md). Then every vertebra is fitted separately. Cameras are refined with all
complete levels, independent of --levels. Writes tables.md, robustness.png, and every case to
metrics.json.
"""

import os
from typing import cast

import jax

from dartjax import data, pipeline, simulation
from dartjax.cli import launch
from experiments.robustness import report
from experiments.robustness.settings import CURVES, Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Make the scenes, compute their starts, fit them, then grade and draw."""
    if unknown := set(settings.curves) - set(CURVES):
        raise data.DataError(
            f"--curves: there is no {', '.join(sorted(unknown))}; choose from {', '.join(CURVES)}"
        )
    curves = [curve for name in settings.curves for curve in CURVES[name]]
    levels = data.parse_levels(settings.levels) if settings.levels else ()
    cases = _cohort(settings.cohort, settings.labels)
    scenes = [
        scene
        for case in cases
        for scene in pipeline.robustness_scenes(
            case,
            curves,
            levels=levels,
            repeats=settings.repeats,
            seed=ctx.seed,
            progress=launch.progress,
        )
    ]
    with launch.progress("starts") as step:
        scenes, residuals = pipeline.start_robustness_scenes(scenes, settings.evidence, step)
    if levels:
        scenes = pipeline.only_levels(scenes, levels)
    rows = pipeline.fit_robustness_scenes(scenes, residuals, ctx.seed, launch.progress)

    record = ctx.record(
        dataset=" + ".join(sorted({case.dataset for case in cases})),
        dataset_kind=cases[0].dataset_kind,
        subjects=[case.subject for case in cases],
        n_vertebrae=len({(row["subject"], row["level"]) for row in rows}),
        ssm_excludes=simulation.excluded(cases),
        nsd_tolerance_mm=1.0,
        ssm_leak=any(map(simulation.is_leak, cases)),
    )
    report.write_tables(ctx.out / "tables.md", record, rows, curves)
    title = report.title_of(record, settings.repeats)
    report.draw(ctx.out / "robustness.png", rows, curves, title)
    ctx.save_metrics(record, report.summary_of(rows, curves), rows)


def _cohort(folder: str | None, labels: str) -> list[data.Case]:
    """Load the subjects of a folder. DataError if real and synthetic data are mixed."""
    if folder is None:
        raise data.DataError("give --cohort=FOLDER, a folder in VerSe layout")
    subjects = data.find_subjects(folder, labels=cast(data.Numbering, labels))
    cases = [data.load_case(subject) for subject in subjects]
    if len({case.dataset_kind for case in cases}) > 1:
        raise data.DataError("the cohort mixes real and synthetic data: run them separately")
    return cases


if __name__ == "__main__":
    # One XLA device per core, so that a batch of vertebrae uses all of them.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    launch.run(main, Settings)
