"""The folder in which a reconstruction run keeps its finished subjects, one unit each.

    WORK/dataset.json          what all units share; a run that differs is refused
    WORK/scans/ID/unit/        one finished subject: unit.json, surfaces (.ply), figures (.png)

A unit is there whole or not at all, so a run that was killed at any moment, or several at once
that share the subjects out, go on where they were. Everything a report says is read from the
units, also in the run that wrote them.
"""

import dataclasses
import hashlib
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dartjax import data, pipeline, report, simulation
from dartjax.cli import launch
from dartjax.pipeline import Answers, Study
from dartjax.report import Row, SubjectResult
from experiments.reconstruct.sources import Source

_FORMAT = 1  # of a unit
_POLL_SECONDS = 0.5


def begin(
    work: pathlib.Path,
    sources: Sequence[Source],
    study: Study,
    commit: str,
    *,
    keep: bool = True,
) -> None:
    """Make the folder, or check that the units in it were made with the same settings, scans and
    code. DataError that names what differs; unless `keep`, units that differ are thrown away."""
    manifest = {
        "format": _FORMAT,
        "commit": commit,
        "code": _code_hash(),
        "settings": dataclasses.asdict(study),
        "subjects": data.ids_hash(source.subject for source in sources),
    }
    try:
        data.start_dataset(work, manifest, flag="work")
    except data.DataError:
        if keep or not (work / data.MANIFEST).is_file():
            raise
        shutil.rmtree(work)
        data.start_dataset(work, manifest, flag="work")


def folder_of(work: pathlib.Path, subject: str) -> pathlib.Path:
    """Where the unit of a subject is, or will be."""
    return work / "scans" / subject / "unit"


def make(
    work: pathlib.Path,
    source: Source,
    answer: Callable[[data.Case], Answers],
    study: Study,
    *,
    shown: bool,
    strict: bool,
) -> None:
    """Write the unit of a subject unless it is there.

    `shown`: with figures for the report. A subject that cannot be used gives a unit that says
    why, or DataError if `strict`.
    """
    folder = folder_of(work, source.subject)
    with data.only_writer(folder.parent):
        if folder.exists():
            return
        try:
            case = source.load()
            write = _writer(case, answer(case), study, shown)
        except data.DataError as error:
            if strict:
                raise
            print(f"{source.subject} cannot be used: {error}", file=sys.stderr, flush=True)
            write = _failed(source.subject, str(error))
        data.publish_folder(folder, write)


def wait_for(work: pathlib.Path, subjects: Sequence[str]) -> None:
    """Until other processes have finished the units of these subjects."""
    for subject in subjects:
        while not folder_of(work, subject).exists():
            time.sleep(_POLL_SECONDS)


def read(work: pathlib.Path, subject: str) -> SubjectResult:
    """A finished unit; DataError if its file cannot be read."""
    folder = folder_of(work, subject)
    content = data.read_json(folder / "unit.json")
    try:
        return SubjectResult(
            folder=folder,
            subject=subject,
            reason=content["reason"],
            cases=list(map(_with_nan, content["cases"])),
            grades={name: list(map(_with_nan, rows)) for name, rows in content["grades"].items()},
            paths=content["paths"],
            people=content["people"],
            ssm_leak=content["ssm_leak"],
        )
    except KeyError as error:
        raise data.DataError(f"{folder}: unit.json lacks {error}; remove the folder") from error


def provenance(sources: Sequence[Source], units: Sequence[SubjectResult]) -> dict[str, Any]:
    """What the record of the run says of the data; DataError if no subject could be used."""
    used = [unit for unit in units if not unit.reason]
    if not used:
        raise data.DataError(f"no subject could be used; {units[0].subject}: {units[0].reason}")
    return {
        "dataset": " + ".join(sorted({source.dataset for source in sources})),
        "dataset_kind": sources[0].dataset_kind,
        "subjects": [unit.subject for unit in used],
        "n_vertebrae": len({(c["subject"], c["level"]) for unit in used for c in unit.cases}),
        "ssm_excludes": sorted({p for unit in used if not unit.ssm_leak for p in unit.people}),
        "nsd_tolerance_mm": 1.0,
        "ssm_leak": any(unit.ssm_leak for unit in used),
    }


def _writer(
    case: data.Case, answers: Answers, study: Study, shown: bool
) -> Callable[[pathlib.Path], None]:
    """Fills a unit's folder; everything that may fail for this subject is done before."""
    headline = study.headline
    estimates = answers.estimates[headline]
    grades = report.grade_answers(answers, launch.progress)
    rows = report.case_rows(answers, headline, grades)
    figures = report.radiograph_pngs(answers, headline) if shown else {}
    content = {
        "reason": "",
        "people": list(simulation.people_of(case)),
        "ssm_leak": simulation.is_leak(case, study.ssm),
        "cases": list(map(report.with_reasons, rows)),
        **report.with_reasons({"paths": _paths(answers, headline)}),
        "grades": {name: list(map(report.with_reasons, each)) for name, each in grades.items()},
    }

    def write(folder: pathlib.Path) -> None:
        data.publish_json(folder / "unit.json", content)
        for name, png in figures.items():
            (folder / name).write_bytes(png)
        report.save_meshes(folder, answers.tasks, estimates)

    return write


def _failed(subject: str, reason: str) -> Callable[[pathlib.Path], None]:
    empty = {"people": [subject], "ssm_leak": False, "cases": [], "paths": {}, "grades": {}}
    return lambda folder: data.publish_json(folder / "unit.json", {"reason": reason, **empty})


def _paths(answers: Answers, headline: str) -> dict[str, Any]:
    return {
        report.surface_name(task): report.path_points(task, estimate)
        for task, estimate in zip(answers.tasks, answers.estimates[headline], strict=True)
        if not pipeline.no_answer_reason(task, estimate)
    }


def _with_nan(row: Mapping[str, Any]) -> Row:
    """A row as it was before it became JSON: NaN where a number is null for a reason."""
    return {
        key: float("nan") if value is None and f"{key}_reason" in row else value
        for key, value in row.items()
    }


def _code_hash() -> str:
    """Of the modules of this project in use: a commit with changed files is not one state."""
    digest = hashlib.sha256()
    modules = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in ("dartjax", "experiments")
    }
    for name in sorted(modules):
        if file := getattr(modules[name], "__file__", None):
            digest.update(name.encode() + pathlib.Path(file).read_bytes())
    return digest.hexdigest()[:16]
