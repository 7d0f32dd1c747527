"""Keep the finished subjects of a reconstruction run in a folder, one unit per subject.

    WORK/dataset.json          settings of all units; a run with other settings is rejected
    WORK/scans/ID/unit/        one finished subject: unit.json, surfaces (.ply), figures (.png)

A unit is complete or absent. A run that was killed at any moment can therefore be continued, and
several processes can share the subjects. The report is always made from the units, also in the run
that wrote them.
"""

import dataclasses
import hashlib
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Sequence

from dartjax import data, report
from dartjax.cli import launch
from dartjax.pipeline import Answers, Study
from dartjax.report import SubjectResult
from experiments.reconstruct.sources import Source

_FORMAT = 3  # of a unit
_POLL_SECONDS = 0.5


def begin(
    work: pathlib.Path,
    sources: Sequence[Source],
    study: Study,
    commit: str,
    *,
    keep: bool = True,
) -> None:
    """Make the folder, or check that its units have the same settings, scans and code.

    DataError names the difference; without `keep`, units that differ are deleted instead.
    """
    manifest = {
        "format": _FORMAT,
        "commit": commit,
        "code": _code_hash(),
        "settings": dataclasses.asdict(study),
        "subjects": data.ids_hash(source.subject for source in sources),
        "labels": sources[0].labels,
    }
    try:
        data.start_dataset(work, manifest)
    except data.DataError as error:
        if keep or not (work / data.MANIFEST).is_file():
            raise data.DataError(f"{error} (--work)") from error
        data.remove_folder(work)
        data.start_dataset(work, manifest)


def folder_of(work: pathlib.Path, subject: str) -> pathlib.Path:
    """Return the folder of the unit of a subject."""
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
    """Reconstruct a subject and write its unit, unless it exists.

    `shown` adds figures for the report. A subject that cannot be used gives a unit with the
    reason, or DataError if `strict`.
    """
    folder = folder_of(work, source.subject)
    with data.only_writer(folder.parent):
        if folder.exists():
            return
        try:
            case, doubts = _loaded(source)
            write = report.subject_writer(
                case, answer(case), study, shown=shown, doubts=doubts, progress=launch.progress
            )
        except data.DataError as error:
            if strict:
                raise
            print(f"{source.subject} cannot be used: {error}", file=sys.stderr, flush=True)
            write = report.failed_subject_writer(source.subject, str(error))
        data.publish_folder(folder, write)


def _loaded(source: Source) -> tuple[data.Case, list[str]]:
    """Read a scan; what is doubtful about it is printed and returned, for the report."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        case = source.load()
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return case, [str(each.message) for each in caught if each.category is UserWarning]


def wait_for(work: pathlib.Path, subjects: Sequence[str]) -> None:
    """Wait until other processes have finished the units of these subjects."""
    for subject in subjects:
        while not folder_of(work, subject).exists():
            time.sleep(_POLL_SECONDS)


def read(work: pathlib.Path, subject: str) -> SubjectResult:
    """Read a finished unit. DataError if its file cannot be read."""
    return report.read_subject(folder_of(work, subject), subject)


def _code_hash() -> str:
    """Hash the imported modules of this project: a commit does not identify changed files."""
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
