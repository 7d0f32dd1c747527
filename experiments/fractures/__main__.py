"""Fractured vertebrae of SynthVerSe, fitted with the fracture modes off and on.

  python -m experiments.make_synthverse --num_subjects=12 --cohort_out=FOLDER
  python -m experiments.fractures --cohort=FOLDER --intact=2

Every fractured vertebra of the cohort, and as many intact ones per subject as asked for, in one
pair of random views each: truth disturbed by 5 mm per axis and 7 degrees, ten landmarks with
3 mm noise, masks of Dice 0.90. Errors by Genant's grade (0 = intact): Dice, MASD, and the height
of the body in front and in the middle. Leaves tables.md, fractures.png, examples.png and every
case in metrics.json.
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
    """Fit every vertebra twice and compare by grade."""
    if settings.cohort is None:
        raise data.DataError("give --cohort=FOLDER of experiments.make_synthverse")
    fractures_of = _fractures_of(settings.cohort, settings.subjects)
    subjects = {s.id: s for s in data.find_subjects(settings.cohort)}
    cases = [data.load_case(subjects[name]) for name in fractures_of]
    tasks, fractures = [], []
    for case in cases:
        by_level = {own["level"]: own for own in fractures_of[case.subject]}
        made = pipeline.fracture_tasks(
            case, list(by_level), settings.intact, ctx.seed, launch.progress
        )
        tasks += made
        fractures += [by_level.get(task.level, {}) for task in made]
    answers = {
        arm: pipeline.fit_fractures(tasks, arm, launch.progress) for arm in (MODES_OFF, MODES_ON)
    }
    rows = pipeline.fracture_cases(tasks, fractures, answers, launch.progress)

    record = ctx.record(
        dataset="SynthVerSe",
        dataset_kind="synthetic",
        subjects=[case.subject for case in cases],
        n_vertebrae=len(tasks),
        ssm_excludes=simulation.excluded(cases),
        nsd_tolerance_mm=1.0,
        ssm_leak=any(map(simulation.is_leak, cases)),
    )
    by_grade = report.rows_of(rows)
    if not record["ssm_leak"]:
        (ctx.out / "tables.md").write_text(markdown_table(record, by_grade), encoding="utf-8")
    report.draw(ctx.out / "fractures.png", rows)
    examples = report.worst_fractures(fractures, answers)
    report.draw_examples(ctx.out / "examples.png", examples)
    ctx.save_metrics(record, report.summary_of(by_grade), rows)


def _fractures_of(cohort: str, wanted: Sequence[str]) -> Mapping[str, Sequence[dict[str, Any]]]:
    """The fractures of every subject that has some; only the wanted subjects, if any are named."""
    facts = synthverse.subject_facts(pathlib.Path(cohort))
    found = {name: own["fractures"] for name, own in facts.items() if own["fractures"]}
    if wanted:
        found = {name: own for name, own in found.items() if name in wanted}
    if not found:
        raise data.DataError(f"{cohort}: no subject with a fracture; make more subjects")
    return found


if __name__ == "__main__":
    # One XLA device per core, so that a batch of vertebrae uses all of them.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    launch.run(main, Settings)
