"""All vertebrae below a folder at once, and whose they are."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from dartjax._errors import DataError
from dartjax._progress import Progress, no_progress
from dartjax.data.cohorts._case import DatasetKind
from dartjax.data.cohorts._cohort import find_subjects
from dartjax.data.cohorts._subject import Subject, load_case
from dartjax.data.cohorts._training_shapes import (
    Rejected,
    TrainingShape,
    find_shapes,
    load_shapes,
)
from dartjax.data.formats import PathLike
from dartjax.data.packaged import same_subject


def collect_shapes(
    folder: PathLike, *, without: Sequence[str] = (), progress: Progress = no_progress
) -> tuple[list[TrainingShape], list[Rejected]]:
    """Load every vertebra below a folder that passes the screens of `load_shapes`, except of the
    subjects `without`; also the reasons against the others.

    DataError when none is left.
    """
    sources = [s for s in find_shapes(folder) if not same_subject(s.subject, without)]
    if not sources:
        raise DataError(f"{folder}: nothing is left without {', '.join(without)}")
    shapes: list[TrainingShape] = []
    rejected: list[Rejected] = []
    taken: dict[tuple[str, str], Path] = {}
    with progress("vertebrae", len(sources)) as step:
        for source in sources:
            found, refused = load_shapes(source, taken)
            shapes += found
            rejected += refused
            taken |= {(shape.subject, shape.level): shape.source for shape in found}
            reasons = "".join(f"; {r.level or 'file'} left out: {r.reason}" for r in refused)
            step(f"{source.subject}: {len(found)} kept{reasons}")
    if not shapes:
        raise DataError(f"{folder}: no vertebra passes the screens: {rejected[0].reason}")
    return shapes, rejected


def people_behind(folder: PathLike, subjects: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Whom models must not have seen, by subject of a folder: itself, and for synthetic subjects
    of a cohort the real people they are made from."""
    scans = {scan.id: scan for scan in _scans(folder)}
    return {
        subject: (subject, *(scans[subject].parents if subject in scans else ()))
        for subject in subjects
    }


def kind_of_shapes(folder: PathLike, subjects: Iterable[str]) -> DatasetKind:
    """ "synthetic" if a subject of the folder is, by its cohort or by its name (masks alone)."""
    synthetic = any(scan.dataset_kind == "synthetic" for scan in _scans(folder))
    synthetic |= any(subject.startswith("synth") for subject in subjects)
    return "synthetic" if synthetic else "real_ct_drr"


def ct_hashes(folder: PathLike, subjects: Iterable[str]) -> list[str]:
    """Content hashes of the CTs of these subjects, where the folder has them: so that a subject
    is recognised under another name."""
    wanted = set(subjects)
    return sorted(load_case(scan).ct_hash for scan in _scans(folder) if scan.id in wanted)


def _scans(folder: PathLike) -> list[Subject]:
    """The scans with a CT; none in a folder of masks or meshes alone."""
    try:
        return find_subjects(folder)
    except DataError:
        return []
