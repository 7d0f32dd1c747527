"""Load all training vertebrae of a folder, with the people they come from."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from dartjax._errors import DataError
from dartjax._progress import Progress, no_progress
from dartjax.anatomy import Numbering
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
    folder: PathLike,
    *,
    without: Sequence[str] = (),
    without_vertebrae: Sequence[str] = (),
    labels: Numbering = "verse",
    progress: Progress = no_progress,
) -> tuple[list[TrainingShape], list[Rejected]]:
    """Load every vertebra in a folder that passes the checks of `load_shapes`.

    Subjects in `without` are skipped; vertebrae in `without_vertebrae` ("verse009/T5"), such as
    fractured ones, are rejected. `labels` is the numbering of masks. The second result lists the
    rejected vertebrae and files. DataError when no vertebra remains.
    """
    sources = [
        s for s in find_shapes(folder, labels=labels) if not same_subject(s.subject, without)
    ]
    if not sources:
        raise DataError(f"{folder}: no vertebra remains without {', '.join(without)}")
    shapes: list[TrainingShape] = []
    rejected: list[Rejected] = []
    taken: dict[tuple[str, str], Path] = {}
    with progress("vertebrae", len(sources)) as step:
        for source in sources:
            loaded, failed = load_shapes(source, taken)
            found = [shape for shape in loaded if _name(shape) not in without_vertebrae]
            failed += [
                Rejected(shape.subject, shape.level, shape.source, "left out by the user")
                for shape in loaded
                if _name(shape) in without_vertebrae
            ]
            shapes += found
            rejected += failed
            taken |= {(shape.subject, shape.level): shape.source for shape in found}
            reasons = "".join(f"; {r.level or 'file'} rejected: {r.reason}" for r in failed)
            step(f"{source.subject}: {len(found)} kept{reasons}")
    if not shapes:
        raise DataError(f"{folder}: no vertebra passes the checks: {rejected[0].reason}")
    return shapes, rejected


def _name(shape: TrainingShape) -> str:
    return f"{shape.subject}/{shape.level}"


def people_behind(folder: PathLike, subjects: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the people that models must not have seen, by subject of a folder.

    These are the subject itself and, for a synthetic subject, the real people it was made from.
    """
    scans = {scan.id: scan for scan in _scans(folder)}
    return {
        subject: (subject, *(scans[subject].parents if subject in scans else ()))
        for subject in subjects
    }


def kind_of_shapes(folder: PathLike, subjects: Iterable[str]) -> DatasetKind:
    """Return "synthetic" if any subject of the folder is synthetic, else "real_ct_drr".

    The cohort says so, or the name of the subject does (in folders of masks only).
    """
    synthetic = any(scan.dataset_kind == "synthetic" for scan in _scans(folder))
    synthetic |= any(subject.startswith("synth") for subject in subjects)
    return "synthetic" if synthetic else "real_ct_drr"


def ct_hashes(
    folder: PathLike, subjects: Iterable[str], *, labels: Numbering = "verse"
) -> list[str]:
    """Return the content hashes of the subjects' CTs, where the folder has them.

    By its hash a subject is recognised under another name.
    """
    wanted = set(subjects)
    return sorted(
        load_case(scan, labels=labels).ct_hash for scan in _scans(folder) if scan.id in wanted
    )


def _scans(folder: PathLike) -> list[Subject]:
    """Find the scans with a CT; none in a folder of masks or meshes only."""
    try:
        return find_subjects(folder)
    except DataError:
        return []
