"""Fractured vertebrae of SynthVerSe, fitted with the fracture modes off and on.

  python -m experiments.make_synthverse --num_subjects=12 --cohort_out=FOLDER
  python -m experiments.fractures --cohort=FOLDER --intact=2

Every fractured vertebra of the cohort, and as many intact ones per subject as asked for, in one
pair of random views each: truth disturbed by 5 mm per axis and 7 degrees, ten landmarks with
3 mm noise, masks of Dice 0.90. Errors by Genant's grade (0 = intact): Dice, MASD, and the height
of the body in front and in the middle. Leaves tables.md, fractures.png, examples.png and every
case in metrics.json.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from dartjax import cli, data, pipeline, registration, report, simulation, ssm, synthverse
from dartjax.pipeline import Estimate, Task, columns_of, run_cases
from dartjax.registration import FitOptions, fit
from dartjax.simulation import Disturbance
from experiments.fractures import report as fractures_report
from experiments.fractures.report import OFF, ON, Answer

_COHORT = flags.DEFINE_string("cohort", None, "Folder of SynthVerSe.")
_INTACT = flags.DEFINE_integer("intact", 2, "Intact vertebrae per subject.", lower_bound=0)
_SUBJECTS = flags.DEFINE_list("subjects", [], "Only these subjects, such as synth0008.")
_EXAMPLES = 4
_LOSS_SD = 0.2  # of a fracture mode


def main(ctx: cli.RunContext) -> None:
    """Fit every vertebra twice and compare by grade."""
    if _COHORT.value is None:
        raise data.DataError("give --cohort=FOLDER of experiments.make_synthverse")
    facts = synthverse.subject_facts(pathlib.Path(_COHORT.value))
    broken = {name: own["fractures"] for name, own in facts.items() if own["fractures"]}
    if _SUBJECTS.value:
        broken = {name: own for name, own in broken.items() if name in _SUBJECTS.value}
    if not broken:
        raise data.DataError(f"{_COHORT.value}: no subject with a fracture; make more subjects")
    subjects = {s.id: s for s in data.find_subjects(_COHORT.value)}
    cases = [data.load_case(subjects[name]) for name in broken]
    tasks, fractures = [], []
    for case in cases:
        made = _tasks(case, broken[case.subject], ctx.seed)
        by_level = {own["level"]: own for own in broken[case.subject]}
        tasks += made
        fractures += [by_level.get(task.level, {}) for task in made]
    answers = {OFF: _fitted(tasks, OFF), ON: _fitted(_with_fracture_modes(tasks), ON)}
    rows = _graded(tasks, fractures, answers)
    record = ctx.record(
        dataset="SynthVerSe",
        dataset_kind="synthetic",
        subjects=[case.subject for case in cases],
        n_vertebrae=len(tasks),
        ssm_excludes=simulation.excluded(cases),
        nsd_tolerance_mm=1.0,
        ssm_leak=any(map(simulation.is_leak, cases)),
    )
    by_grade = fractures_report.rows_of(rows)
    if not record["ssm_leak"]:
        table = report.markdown_table(record, by_grade)
        (ctx.out / "tables.md").write_text(table, encoding="utf-8")
    fractures_report.draw(ctx.out / "fractures.png", rows)
    fractures_report.draw_examples(ctx.out / "examples.png", _examples(tasks, fractures, answers))
    ctx.save_metrics(record, _summary(by_grade), rows)


def _tasks(case: data.Case, fractures: Sequence[dict[str, Any]], seed: int) -> list[Task]:
    """The fractured vertebrae of a subject that are complete, and some of the intact ones, evenly
    along the spine, in one pair of views."""
    levels = [own["level"] for own in fractures if own["level"] in case.levels]
    others = [level for level in case.levels if level not in {f["level"] for f in fractures}]
    places = np.linspace(0, len(others) - 1, _INTACT.value + 2)[1:-1]
    levels += [others[round(place)] for place in places] if others else []
    with cli.progress(f"true shapes of {case.subject}", len(levels)) as step:
        known = simulation.true_vertebrae(case, levels, step)
    rng = np.random.default_rng([seed, int(case.subject[-4:])])
    isocenter = simulation.middle_of(known)
    setup = simulation.CarmSetup()
    radiographs = simulation.simulate(
        case.ct, simulation.random_views(rng, isocenter, setup), setup
    )
    angle = simulation.pair_angles_deg([r.camera for r in radiographs])[0]
    tasks = []
    for truth in known:
        seen, start = simulation.disturbed_observations(truth, radiographs, rng, Disturbance())
        tasks.append(Task(case.subject, truth.level, 0, truth.model, seen, start, truth, angle))
    return tasks


def _with_fracture_modes(tasks: Sequence[Task]) -> list[Task]:
    extended = jax.jit(lambda model: ssm.with_fracture_modes(model, _LOSS_SD))
    return [dataclasses.replace(task, model=extended(task.model)) for task in tasks]


def _options(arm: str) -> FitOptions:
    ours = registration.FIT_OPTIONS[registration.ALONE]
    return dataclasses.replace(ours, nonnegative_modes=3 if arm == ON else 0)


def _fitted(tasks: Sequence[Task], arm: str) -> list[Answer]:
    """Each task with its answer."""
    options = _options(arm)
    with cli.progress(f"fits, {arm}") as step:
        each, _ = run_cases(
            lambda model, seen, start: fit(model, seen, start, options),
            *columns_of(tasks),
            step=step,
        )
    return [
        Answer(task, Estimate(own.pose, own.coefficients, int(own.status), np.nan))
        for task, own in zip(tasks, each, strict=True)
    ]


def _graded(
    tasks: Sequence[Task],
    fractures: Sequence[dict[str, Any]],
    answers: dict[str, list[Answer]],
) -> list[dict[str, Any]]:
    rows = []
    with cli.progress("grades", len(tasks)) as step:
        for i, (task, fracture) in enumerate(zip(tasks, fractures, strict=True)):
            assert task.truth is not None
            true = fractures_report.body_heights(task.truth.surface, task.truth.pose)
            for arm, given in answers.items():
                rows.append(_row(given[i], fracture, arm, true))
            step(f"{task.subject} {task.level}")
    return rows


def _row(
    answer: Answer, fracture: dict[str, Any], arm: str, true: dict[str, float]
) -> dict[str, Any]:
    task, estimate = answer
    heights = fractures_report.body_heights(pipeline.surface(task, estimate), estimate.pose)
    losses = np.asarray(estimate.coefficients)[-3:] * _LOSS_SD if arm == ON else np.zeros(3)
    return {
        "subject": task.subject,
        "level": task.level,
        "kind": fracture.get("kind", "intact"),
        "grade": fracture.get("grade", 0),
        "true_loss": fracture.get("loss", 0.0),
        "arm": arm,
        "status": pipeline.status_text(task, estimate),
        "angle_deg": task.angle_deg,
        "landmarks_trusted": task.truth is not None and task.truth.landmarks is not None,
        **pipeline.grade(task, estimate),
        **{f"{place}_height_mm": true[place] for place in true},
        **{f"{place}_height_error_mm": heights[place] - true[place] for place in true},
        **{
            f"{name}_loss": float(loss)
            for name, loss in zip(ssm.FRACTURE_NAMES, losses, strict=True)
        },
    }


def _examples(
    tasks: Sequence[Task], fractures: Sequence[dict[str, Any]], answers: dict[str, list[Answer]]
) -> list[tuple[str, dict[str, Answer]]]:
    """The worst fractures, worst first."""
    order = np.argsort([-fracture.get("loss", 0.0) for fracture in fractures])[:_EXAMPLES]
    return [
        (
            f"{tasks[i].subject} {tasks[i].level}, "
            f"{fractures[i].get('kind', 'intact')} {100 * fractures[i].get('loss', 0):.0f} %",
            {arm: given[i] for arm, given in answers.items()},
        )
        for i in order
    ]


def _summary(by_grade: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        f"grade_{row['grade']}_{'on' if row['arm'] == ON else 'off'}_{key}": row[name]
        for row in by_grade
        for key, name in (("dice_median", "Dice"), ("masd_mm_median", "MASD [mm]"))
    }


if __name__ == "__main__":
    # One XLA device per core, so that a batch of vertebrae uses all of them.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    cli.run(main)
