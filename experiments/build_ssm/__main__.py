"""Build a set of shape models, one per region, and measure its quality.

  python -m experiments.build_ssm --data=FOLDER --exclude_subjects=lidc0001 --out=OUT
      FOLDER has masks in VerSe or CTSpine1K layout, meshes named by level, or both, at any depth.
      Writes models.npz and card.json (use them with --ssm=OUT), tables.md and figures to OUT.
  python -m experiments.build_ssm --data=FOLDER --packaged --out=OUT \\
      --exclude_vertebrae=verse009/T5,verse009/L3,verse007/T12,verse007/L1
      Builds all packaged sets into folders of OUT, with the quality of the set of all subjects.

All packaged sets took 42 minutes in one process. Registrations and models of regions are cached, so
a build that was stopped continues where it was.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import pathlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from dartjax import data, ssm
from dartjax.cli import launch
from dartjax.ssm import build
from experiments.build_ssm.card import PACKAGED, PEOPLE_BEHIND, RECIPES, START_SUBJECTS, card_of
from experiments.build_ssm.settings import Settings
from experiments.common import ssm_data, ssm_report


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Register the shapes, build the models of every set, measure their quality, and draw them."""
    folder = ssm_data.shape_folder(settings.data)
    if settings.packaged and (settings.exclude_subjects or settings.name):
        raise data.DataError("--packaged builds the packaged sets: omit their subjects and names")
    used, rejected = data.collect_shapes(
        folder,
        without=settings.exclude_subjects,
        without_vertebrae=settings.exclude_vertebrae,
        labels=cast(data.Numbering, settings.labels),
        progress=launch.progress,
    )
    template, targets = data.load_template(), data.published_targets()
    sets = PACKAGED if settings.packaged else {"": settings.exclude_subjects}
    summary: dict[str, Any] = {}
    # Spawned, because a forked process cannot use JAX.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(settings.processes, spawn) as pool:
        registered = _registered(used, template, pool.map)
        for name, excluded in sets.items():
            own = dataclasses.replace(
                settings,
                name=name or settings.name,
                exclude_subjects=tuple(excluded),
                quality=settings.quality and name in ("", "all"),
            )
            out = ctx.out / name
            summary |= _build_set(own, out, folder, used, registered, template, targets, pool.map)

    record = ctx.record(
        dataset=folder.absolute().name,
        dataset_kind="real_ct_drr",
        subjects=sorted({shape.subject for shape in used}),
        n_vertebrae=len(used),
        ssm_excludes=settings.exclude_subjects,
        nsd_tolerance_mm=None,
    )
    record["rejected"] = ssm_data.rejected_entries(rejected)
    ctx.save_metrics(record, summary, [_case(each) for each in registered])


def _build_set(
    settings: Settings,
    out: pathlib.Path,
    folder: pathlib.Path,
    shapes: Sequence[data.TrainingShape],
    registrations: Sequence[build.RegisteredSurface],
    template: build.Template,
    targets: dict[str, dict[str, build.Target]],
    mapped: build.Mapped,
) -> dict[str, Any]:
    """Build and write one set, from the shapes of all subjects but the excluded ones."""
    without = settings.exclude_subjects
    used = [shape for shape in shapes if not data.same_subject(shape.subject, without)]
    registered = [r for r in registrations if not data.same_subject(r.surface.subject, without)]
    regions = _built(settings, registered, template, targets, mapped)
    with launch.progress("annotation") as step:
        models = build.annotated_models(
            regions, template.topology, as_stored=data.as_stored, mapped=mapped
        )
        step(f"{len(models)} levels {settings.name}")
    card = card_of(settings, folder, used, registered, regions)
    summary: dict[str, Any] = {"registration_residual_mm": card["registration_residual_mm"]}
    out.mkdir(exist_ok=True)
    if settings.quality:
        quality = build.measure_quality(
            registered,
            regions,
            models,
            template,
            targets,
            recipe=RECIPES[settings.recipe],
            leave_out=settings.leave_out,
            subject_counts=ssm_data.whole_numbers(settings.subject_counts, "subject_counts"),
            remember=data.remembered,
            mapped=mapped,
            progress=launch.progress,
        )
        card["quality"] = quality.summary
        summary |= quality.summary
        ssm_report.write_tables(out, quality)
    data.save_shape_models(out, models, card)
    ssm_report.write_pictures(out, models, template)
    return summary


def _registered(
    used: Sequence[data.TrainingShape], template: build.Template, mapped: build.Mapped
) -> list[build.RegisteredSurface]:
    """Register the template with every vertebra; finished registrations are cached."""
    surfaces = [_in_own_frame(shape) for shape in used]
    with launch.progress("registration", build.NUM_ROUNDS * len(surfaces)) as step:
        return build.register_surfaces(
            surfaces,
            template,
            remember=data.remembered,
            start_subjects=START_SUBJECTS,
            mapped=mapped,
            step=step,
        )


def _in_own_frame(shape: data.TrainingShape) -> build.TrainingSurface:
    """Move a surface into its vertebra frame. T13 and L6 count as the level above."""
    vertices, faces = np.asarray(shape.surface.vertices, float), np.asarray(shape.surface.faces)
    return build.TrainingSurface(
        subject=shape.subject,
        level=data.SUPERNUMERARY.get(shape.level, shape.level),
        vertices=ssm.to_vertebra_frame(vertices, faces),
        faces=faces,
        people=PEOPLE_BEHIND.get(shape.subject, 1),
    )


def _built(
    settings: Settings,
    registered: Sequence[build.RegisteredSurface],
    template: build.Template,
    targets: dict[str, dict[str, build.Target]],
    mapped: build.Mapped,
) -> dict[str, build.RegionModel]:
    """Build the models of all regions. DataError if a region has too few shapes."""
    try:
        return build.build_regions(
            [each.shape for each in registered],
            template.topology,
            targets,
            num_modes=settings.num_modes,
            recipe=RECIPES[settings.recipe],
            remember=data.remembered,
            mapped=mapped,
        )
    except ValueError as error:
        raise data.DataError(f"{settings.data}: {error}") from error


def _case(each: build.RegisteredSurface) -> dict[str, Any]:
    """Make the case of one training shape: its registration residual."""
    return {
        "subject": each.surface.subject,
        "level": each.surface.level,
        "registration_residual_mm": each.residual_mm,
    }


if __name__ == "__main__":
    launch.run(main, Settings)
