"""Make SynthVerSe: a cohort of synthetic subjects (CT and labels) in the layout of VerSe.

  python -m experiments.make_synthverse --num_subjects=2 --cohort_out=FOLDER
      Makes parametric vertebrae, without any input.
  python -m experiments.make_synthverse --family=both --meshes=MESHES --cohort_out=FOLDER
      MESHES has the surfaces of real vertebrae as SUBJECT/LEVEL.ply (RAS+ mm). Subjects with odd
      numbers are warped from them, the others are parametric.

Subjects are written one by one. A run that was killed leaves complete subjects only, and the same
command continues it. The run folder (--out) has a sheet of pictures and a table of the subjects.
A subject depends only on --seed and its number.
"""

import pathlib
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from dartjax import synthverse
from dartjax.cli import launch
from experiments.make_synthverse import report
from experiments.make_synthverse.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Make the subjects, then write the sheet and the table."""
    options = _options(settings)
    folder = _cohort_folder(settings.cohort_out, ctx.out)
    synthverse.open_cohort(folder, _facts(settings, options, ctx.seed, ctx.config["commit"]))
    numbers = range(settings.first, settings.first + settings.num_subjects)
    seconds = _fill(folder, ctx.seed, numbers, settings.family, options)
    synthverse.save_participants(folder)

    known = synthverse.subject_facts(folder)
    cases = [report.case_of(n, known[synthverse.subject_id(n)], seconds[n]) for n in numbers]
    record = ctx.record(
        dataset="SynthVerSe",
        dataset_kind="synthetic",
        subjects=[case["subject"] for case in cases],
        n_vertebrae=sum(case["vertebrae"] for case in cases),
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    made = [s for s in seconds.values() if s]
    summary = {
        "num_subjects": len(cases),
        "num_made": len(made),
        "seconds_per_subject": float(np.mean(made)) if made else float("nan"),
    }
    ctx.save_metrics(record, summary, cases)
    report.write_sheet(ctx.out / "sheet.png", folder, [case["subject"] for case in cases[:6]])


def _options(settings: Settings) -> synthverse.Options:
    return synthverse.Options(
        spacing_mm=settings.spacing_mm,
        view=cast(Any, settings.field_of_view),
        meshes=pathlib.Path(settings.meshes) if settings.meshes else None,
        thick_slices=settings.thick_slices,
        orientations=settings.orientations,
    )


def _cohort_folder(given: str | None, out: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(given).absolute() if given else out / "cohort"


def _facts(
    settings: Settings, options: synthverse.Options, seed: int, commit: str
) -> dict[str, Any]:
    """Return the settings for the description of the cohort."""
    return {
        "Seed": seed,
        "Commit": commit,
        "Family": settings.family,
        "SpacingMm": options.spacing_mm,
        "FieldOfView": options.view,
        "ThickSlices": options.thick_slices,
        "Orientations": options.orientations,
        "MeshesOf": sorted(synthverse.find_parents(options.meshes)) if options.meshes else [],
    }


def _fill(
    folder: pathlib.Path,
    seed: int,
    numbers: Sequence[int],
    family: str,
    options: synthverse.Options,
) -> dict[int, float]:
    """Make the missing subjects; return seconds by number, 0 for an existing subject."""
    seconds = {}
    with launch.progress("subjects", len(numbers)) as step:
        for number in numbers:
            own = synthverse.FAMILIES[number % 2] if family == "both" else cast(Any, family)
            seconds[number] = _make(folder, seed, number, own, options)
            name = synthverse.subject_id(number)
            step(f"{name}: {f'{seconds[number]:.0f} s' if seconds[number] else 'exists'}")
    return seconds


def _make(
    folder: pathlib.Path,
    seed: int,
    number: int,
    family: synthverse.Family,
    options: synthverse.Options,
) -> float:
    """Make and write one subject unless it exists; return the seconds, 0 if it exists."""
    if synthverse.has_subject(folder, number):
        return 0.0
    started = time.perf_counter()
    subject = synthverse.make_subject(seed, number, family, options)
    synthverse.save_subject(folder, subject)
    synthverse.save_participants(folder)
    return time.perf_counter() - started


if __name__ == "__main__":
    launch.run(main, Settings)
