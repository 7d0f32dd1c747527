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
from collections.abc import Callable, Sequence

from dartjax import data, report
from dartjax.cli import launch
from dartjax.pipeline import Answers, Study
from dartjax.report import SubjectResult
from experiments.reconstruct.sources import Source

_FORMAT = 2  # of a unit
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
        data.start_dataset(work, manifest)
    except data.DataError as error:
        if keep or not (work / data.MANIFEST).is_file():
            raise data.DataError(f"{error} (--work)") from error
        shutil.rmtree(work)
        data.start_dataset(work, manifest)


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
            write = report.subject_writer(
                case, answer(case), study, shown=shown, progress=launch.progress
            )
        except data.DataError as error:
            if strict:
                raise
            print(f"{source.subject} cannot be used: {error}", file=sys.stderr, flush=True)
            write = report.failed_subject_writer(source.subject, str(error))
        data.publish_folder(folder, write)


def wait_for(work: pathlib.Path, subjects: Sequence[str]) -> None:
    """Until other processes have finished the units of these subjects."""
    for subject in subjects:
        while not folder_of(work, subject).exists():
            time.sleep(_POLL_SECONDS)


def read(work: pathlib.Path, subject: str) -> SubjectResult:
    """A finished unit; DataError if its file cannot be read."""
    return report.read_subject(folder_of(work, subject), subject)


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
