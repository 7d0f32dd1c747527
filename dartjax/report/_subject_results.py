"""Write and read the results of one subject of a study: unit.json, surfaces and figures."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dartjax import data, pipeline, simulation
from dartjax._progress import Progress, no_progress
from dartjax.pipeline import Answers, ReconstructOptions, Study
from dartjax.report._reconstruction_cases import (
    Row,
    case_rows,
    grade_answers,
    path_points,
    save_meshes,
    surface_name,
)
from dartjax.report._reconstruction_figures import radiograph_pngs
from dartjax.report._results import with_reasons

Writer = Callable[[pathlib.Path], None]  # fills a folder


@dataclasses.dataclass(frozen=True)
class SubjectResult:
    """Results of one subject. If it could not be used, `reason` says why and the rest is empty."""

    folder: pathlib.Path
    subject: str
    reason: str
    cases: list[Row]  # of metrics.json
    grades: dict[str, list[Row]]  # of every method, in the order of the cases
    paths: dict[str, Any]  # by the name of the surface
    spines: list[dict[str, Any]]  # as in spine.json, one per pair of views
    people: list[str]  # people that the shape models must not have seen
    ssm_leak: bool
    doubts: list[str]  # warnings about the scan


def subject_writer(
    case: data.Case,
    answers: Answers,
    study: Study,
    *,
    shown: bool,
    doubts: Sequence[str] = (),
    progress: Progress = no_progress,
) -> Writer:
    """Grade the answers of one subject and return a function that writes them to a folder.

    Grading is done before, so that it fails before the folder is made. `shown` adds figures for the
    report; `doubts` are warnings about the scan.
    """
    headline = study.headline
    estimates = answers.estimates[headline]
    grades = grade_answers(answers, progress)
    rows = case_rows(answers, headline, grades)
    figures = radiograph_pngs(answers, headline) if shown else {}
    content = {
        "reason": "",
        "doubts": list(doubts),
        "people": list(simulation.people_of(case)),
        "ssm_leak": simulation.is_leak(case, study.ssm),
        "cases": list(map(with_reasons, rows)),
        **with_reasons({"paths": _paths(answers, headline)}),
        "spines": _spines(case, answers, study),
        "grades": {name: list(map(with_reasons, each)) for name, each in grades.items()},
    }

    def write(folder: pathlib.Path) -> None:
        data.publish_json(folder / "unit.json", content)
        for name, png in figures.items():
            (folder / name).write_bytes(png)
        save_meshes(folder, answers.tasks, estimates)

    return write


def failed_subject_writer(subject: str, reason: str) -> Writer:
    """Return a function that writes the folder of a subject that could not be used."""
    empty = {"cases": [], "paths": {}, "spines": [], "grades": {}}
    content = {"reason": reason, "people": [subject], "ssm_leak": False, "doubts": [], **empty}
    return lambda folder: data.publish_json(folder / "unit.json", content)


def read_subject(folder: pathlib.Path, subject: str) -> SubjectResult:
    """Read the results of a subject from its folder. DataError if unit.json cannot be read."""
    content = data.read_json(folder / "unit.json")
    try:
        return SubjectResult(
            folder=folder,
            subject=subject,
            reason=content["reason"],
            cases=list(map(_with_nan, content["cases"])),
            grades={name: list(map(_with_nan, rows)) for name, rows in content["grades"].items()},
            paths=content["paths"],
            spines=content["spines"],
            people=content["people"],
            ssm_leak=content["ssm_leak"],
            doubts=content["doubts"],
        )
    except KeyError as error:
        raise data.DataError(
            f"{folder}: unit.json lacks {error}: remove the folder to compute it again"
        ) from error


def provenance(
    datasets: Sequence[str], dataset_kind: str, results: Sequence[SubjectResult]
) -> dict[str, Any]:
    """Make the fields of a run's record about its data. DataError if no subject could be used."""
    used = [result for result in results if not result.reason]
    if not used:
        first = results[0]
        raise data.DataError(f"no subject could be used; {first.subject}: {first.reason}")
    people = {p for result in used if not result.ssm_leak for p in result.people}
    return {
        "dataset": " + ".join(sorted(set(datasets))),
        "dataset_kind": dataset_kind,
        "subjects": [result.subject for result in used],
        "n_vertebrae": len({(c["subject"], c["level"]) for each in used for c in each.cases}),
        "ssm_excludes": sorted(people),
        "nsd_tolerance_mm": 1.0,
        "ssm_leak": any(result.ssm_leak for result in used),
    }


def _paths(answers: Answers, headline: str) -> dict[str, Any]:
    return {
        surface_name(task): path_points(task, estimate)
        for task, estimate in zip(answers.tasks, answers.estimates[headline], strict=True)
        if not pipeline.no_answer_reason(task, estimate)
    }


def _spines(case: data.Case, answers: Answers, study: Study) -> list[dict[str, Any]]:
    """Make the contents of spine.json, one per pair of views; meshes are given by file name."""
    exclude = () if simulation.is_leak(case, study.ssm) else tuple(simulation.people_of(case))
    options = ReconstructOptions(study.recipe, shape_models=study.ssm, exclude=exclude)
    estimates = answers.estimates[study.headline]
    spines = []
    for pair in sorted({task.pair for task in answers.tasks}):
        own = [i for i, task in enumerate(answers.tasks) if task.pair == pair]
        tasks = [answers.tasks[i] for i in own]
        assessed = [answers.assessments[i] for i in own] if answers.assessments else []
        spine = pipeline.spine_of_answers(tasks, [estimates[i] for i in own], assessed, options)
        names = {task.level: f"{surface_name(task)}.ply" for task in tasks}
        spines.append(spine.as_json(names.__getitem__))
    return spines


def _with_nan(row: Mapping[str, Any]) -> Row:
    """Restore a row from JSON: NaN where a number is null with a reason."""
    return {
        key: float("nan") if value is None and f"{key}_reason" in row else value
        for key, value in row.items()
    }
