"""Compare the crops of synthetic radiographs, from which networks learn, with those of real CTs.

    python -m experiments.crop_realism --real=FOLDER --synthetic=COHORT [--earlier=COHORT]
        --bodies=verse005,verse006 --out=OUT

Writes tables.md (statistics by region of the spine; a classifier of real against synthetic crops),
sheet.png (eight real and eight synthetic crops, shuffled; the key is in metrics.json),
statistics.png and metrics.json. A subject takes about a minute, if its surfaces are not cached.
"""

import pathlib
from typing import cast

import jax
import numpy as np

from dartjax import data, simulation, training
from dartjax.cli import launch
from dartjax.registration import CROP_PIXELS, CROP_WIDTH_MM
from experiments.crop_realism import report
from experiments.crop_realism.settings import Settings

PIXEL_MM = CROP_WIDTH_MM / CROP_PIXELS


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Simulate the crops, compare them, and write tables and figures."""
    if not (settings.real and settings.synthetic):
        raise data.DataError("give --real=FOLDER and --synthetic=COHORT")
    folder = pathlib.Path(settings.crops or ctx.out / "crops")
    cohorts = {"synthetic": settings.synthetic, "earlier": settings.earlier}
    groups = {"real": _crops(settings, settings.real, folder / "real", ctx.seed)}
    for name, cohort in cohorts.items():
        if cohort:
            groups[name] = _crops(settings, cohort, folder / name, ctx.seed)
    measured = {name: training.measure_crops(crops, PIXEL_MM) for name, crops in groups.items()}
    rows = [
        row
        for name in groups
        if name != "real"
        for row in training.compare_crops(measured["real"], measured[name], name)
    ]
    scores = {
        name: training.tell_apart(
            *training.labelled_features(measured["real"], measured[name]), ctx.seed
        )
        for name in groups
        if name != "real"
    }
    rng = np.random.default_rng(ctx.seed)
    key = report.draw_sheet(ctx.out / "sheet.png", groups["real"], groups["synthetic"], rng)
    report.draw_statistics(ctx.out / "statistics.png", measured)
    (ctx.out / "tables.md").write_text(report.tables(rows, scores), encoding="utf-8")
    names = sorted({str(s) for crops in groups.values() for s in crops.subject})
    record = ctx.record(
        dataset=f"{settings.real} and {settings.synthetic}",
        dataset_kind="real_ct_drr",
        subjects=names,
        n_vertebrae=sum(len(crops.level) for crops in groups.values()),
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    summary = {
        f"{name}_{field}": float(value)
        for name, score in scores.items()
        for field, value in score._asdict().items()
    }
    inside = [row["inside"] for row in rows if row["cohort"] == "synthetic"]
    summary["share_of_real_inside"] = float(np.mean(inside))
    ctx.save_metrics(record, summary, [*rows, *key])


def _crops(settings: Settings, cohort: str, folder: pathlib.Path, seed: int) -> training.Crops:
    """Simulate the crops of the subjects of a cohort."""
    subjects = data.find_subjects(cohort)
    real = [s for s in subjects if s.dataset_kind != "synthetic"]
    chosen = real or subjects[: settings.subjects]
    files = []
    with launch.progress(f"crops of {cohort}", len(chosen)) as step:
        for subject in chosen:
            name = subject.id.removeprefix("sub-")
            around = "synthetic" if name in settings.bodies else "none"
            for draw in range(settings.draws):
                files.append(
                    training.prepare_crops(
                        folder, subject, seed + draw, cast(simulation.Surroundings, around)
                    )
                )
            jax.clear_caches()
            step(name)
    return training.load_crops(files)


if __name__ == "__main__":
    launch.run(main, Settings)
