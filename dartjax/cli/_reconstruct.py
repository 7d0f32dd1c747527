"""`dartjax reconstruct`: reconstruct vertebrae from the user's own X-rays."""

from typing import cast

from dartjax import data, pipeline, report
from dartjax.cli import _launch as launch
from dartjax.cli._commands import Reconstruct
from dartjax.pipeline import ReconstructOptions


def main(ctx: launch.RunContext, settings: Reconstruct) -> None:
    """Reconstruct the vertebrae that are found, or that have an initial estimate, and write the
    run folder."""
    if not (settings.images and settings.cameras):
        raise data.DataError(
            "give the X-rays and one camera per X-ray: "
            "dartjax reconstruct a.png b.png --cameras=cameras.json"
        )
    views = data.load_cameras(settings.cameras)
    radiographs = data.load_radiographs(settings.images, views, cast(data.Kind, settings.pixels))
    spine = pipeline.reconstruct(
        radiographs,
        levels=data.parse_levels(settings.levels) if settings.levels else None,
        starts=data.load_starts(settings.init) if settings.init else None,
        options=_options(settings, ctx.seed),
        progress=launch.progress,
    )
    for warning in spine.warnings:
        launch.warn(warning)
    record = ctx.record(
        dataset="user X-rays",
        dataset_kind="real_xray",
        subjects=["xrays"],
        n_vertebrae=len(spine),
        ssm_excludes=[],
        nsd_tolerance_mm=1.0,
    )
    summary, cases = report.write_spine(ctx.out, record, spine, radiographs)
    ctx.save_metrics(record, summary, cases)


def _options(settings: Reconstruct, seed: int) -> ReconstructOptions:
    return ReconstructOptions(
        recipe=settings.recipe,
        restarts=settings.restarts,
        similarity=settings.similarity,
        shape_models=settings.ssm,
        needle_radius_mm=settings.needle_radius_mm,
        seed=seed,
    )
