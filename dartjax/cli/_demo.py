"""`dartjax demo`: a complete example on a CT with ground truth."""

import pathlib
import tempfile

from dartjax import data, pipeline, report, synthverse
from dartjax.cli import _launch as launch
from dartjax.cli._commands import Demo
from dartjax.pipeline import Study


def main(ctx: launch.RunContext, settings: Demo) -> None:
    """Simulate two X-rays of a CT, reconstruct its vertebrae, and compare them with the CT."""
    case, why_synthetic = synthverse.demo_case(offline=settings.offline, progress=launch.progress)
    if why_synthetic:
        launch.warn(f"{why_synthetic}\nRunning on SYNTHETIC anatomy instead.")
    levels = tuple(data.parse_levels(settings.levels)) if settings.levels else ()
    study = Study(seed=ctx.seed, levels=levels, baselines=False)
    answers = pipeline.reconstruct_subject(case, study, study.seed_of(0), progress=launch.progress)
    write = report.subject_writer(case, answers, study, shown=True, progress=launch.progress)
    with tempfile.TemporaryDirectory() as folder:
        write(pathlib.Path(folder))
        finished = [report.read_subject(pathlib.Path(folder), case.subject)]
        record = ctx.record(**report.provenance([case.dataset], case.dataset_kind, finished))
        summary, cases = report.write_graded(
            ctx.out, record, finished, study.headline, progress=launch.progress
        )
        ctx.save_metrics(record, summary, cases)
