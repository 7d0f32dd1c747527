"""Fit fractured vertebrae with the fracture modes off and on.

  python -m experiments.make_synthverse --num_subjects=12 --cohort_out=FOLDER
  python -m experiments.fractures --cohort=FOLDER --intact=2
  python -m experiments.fractures --cohort=FOLDER --fractured=verse007/T12/2,verse007/L1/2 --pairs=5

Fits every fractured vertebra of the cohort, and --intact intact vertebrae per subject, each in
--pairs random pairs of views. The fractures of SynthVerSe are known; those of other cohorts are
given. The start is the true pose, disturbed by 5 mm per axis and 7 degrees. The ten landmarks have
3 mm noise, the masks a Dice of 0.90. Reports Dice, MASD, and the errors of the anterior and middle
height of the body, by Genant's grade (0 = intact). Writes tables.md,
fractures.png, examples.png, and every case to metrics.json.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from dartjax import data, pipeline, simulation, synthverse
from dartjax.cli import launch
from dartjax.pipeline import MODES_OFF, MODES_ON
from dartjax.report import markdown_table
from experiments.fractures import report
from experiments.fractures.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Fit every vertebra with both settings and compare the errors by grade."""
    if settings.cohort is None:
        raise data.DataError("give --cohort=FOLDER")
    given = _given(settings.fractured)
    fractures_of = given or _fractures_of(settings.cohort, settings.subjects)
    subjects = {s.id: s for s in data.find_subjects(settings.cohort)}
    if unknown := sorted(set(fractures_of) - set(subjects)):
        raise data.DataError(f"{settings.cohort} has no {', '.join(unknown)}")
    cases = [data.load_case(subjects[name]) for name in fractures_of]
    tasks, fractures = [], []
    for case in cases:
        by_level = {own["level"]: own for own in fractures_of[case.subject]}
        made = pipeline.fracture_tasks(
            case, list(by_level), settings.intact, ctx.seed, launch.progress, settings.pairs
        )
        tasks += made
        fractures += [by_level.get(task.level, {}) for task in made]
    answers = {
        arm: pipeline.fit_fractures(tasks, arm, launch.progress) for arm in (MODES_OFF, MODES_ON)
    }
    rows = pipeline.fracture_cases(tasks, fractures, answers, launch.progress)

    record = ctx.record(
        dataset=cases[0].dataset,
        dataset_kind=cases[0].dataset_kind,
        subjects=[case.subject for case in cases],
        n_vertebrae=len(tasks) // settings.pairs,
        ssm_excludes=simulation.excluded(cases),
        nsd_tolerance_mm=1.0,
        ssm_leak=any(map(simulation.is_leak, cases)),
    )
    by_grade = report.rows_of(rows)
    if not record["ssm_leak"]:
        (ctx.out / "tables.md").write_text(markdown_table(record, by_grade), encoding="utf-8")
    report.draw(ctx.out / "fractures.png", rows, record)
    examples = report.worst_fractures(fractures, answers)
    report.draw_examples(ctx.out / "examples.png", examples, record)
    ctx.save_metrics(record, report.summary_of(by_grade), rows)


def _given(fractured: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Parse "SUBJECT/LEVEL/GRADE" of the fractured vertebrae of real people."""
    found: dict[str, list[dict[str, Any]]] = {}
    for text in fractured:
        parts = text.split("/")
        if len(parts) != 3 or parts[2] not in ("1", "2", "3"):
            raise data.DataError(
                f"--fractured={text}: write SUBJECT/LEVEL/GRADE, such as verse007/L1/2"
            )
        known = {"level": data.parse_levels(parts[1])[0], "kind": "real", "grade": int(parts[2])}
        found.setdefault(parts[0], []).append(known)
    return found


def _fractures_of(cohort: str, wanted: Sequence[str]) -> Mapping[str, Sequence[dict[str, Any]]]:
    """Read the fractures of the wanted subjects (default: all) that have any."""
    facts = synthverse.subject_facts(pathlib.Path(cohort))
    found = {name: own["fractures"] for name, own in facts.items() if own["fractures"]}
    if wanted:
        found = {name: own for name, own in found.items() if name in wanted}
    if not found:
        raise data.DataError(f"{cohort}: no subject has a fracture: make more subjects")
    return found


if __name__ == "__main__":
    # One XLA device per core, so that a batch of vertebrae uses all of them.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    launch.run(main, Settings)
