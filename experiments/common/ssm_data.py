"""The vertebrae of --data, for the experiments on shape models."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

from absl import flags

from dartjax import cli, data

DATA = flags.DEFINE_string("data", None, "Folder with masks or meshes of vertebrae.")
EXCLUDE = flags.DEFINE_list(
    "exclude_subjects", [], "Subjects the models have not seen; such as lidc0001,tptct."
)


def collect_shapes(
    without: Sequence[str] = (),
) -> tuple[list[data.TrainingShape], list[data.Rejected]]:
    """Every vertebra below --data that passes the screens, except of the subjects `without`, and
    the reasons against others.

    DataError when there is none.
    """
    folder = DATA.value
    if folder is None:
        raise data.DataError("--data is needed: a folder with masks or meshes of vertebrae")
    sources = [s for s in data.find_shapes(folder) if not data.same_subject(s.subject, without)]
    if not sources:
        raise data.DataError(f"{folder}: nothing is left without {', '.join(without)}")
    shapes: list[data.TrainingShape] = []
    rejected: list[data.Rejected] = []
    taken: dict[tuple[str, str], pathlib.Path] = {}
    with cli.progress("vertebrae", len(sources)) as step:
        for source in sources:
            found, refused = data.load_shapes(source, taken)
            shapes += found
            rejected += refused
            taken |= {(shape.subject, shape.level): shape.source for shape in found}
            reasons = "".join(f"; {r.level or 'file'} left out: {r.reason}" for r in refused)
            step(f"{source.subject}: {len(found)} kept{reasons}")
    if not shapes:
        raise data.DataError(f"{folder}: no vertebra passes the screens: {rejected[0].reason}")
    return shapes, rejected


def people_behind(subjects: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Whom the models must not have seen, by subject: itself, and for synthetic subjects of a
    cohort the real people they are made from."""
    scans = {scan.id: scan for scan in _scans()}
    return {
        subject: (subject, *(scans[subject].parents if subject in scans else ()))
        for subject in subjects
    }


def kind(subjects: Iterable[str]) -> data.DatasetKind:
    """ "synthetic" if a subject of the folder is, by its cohort or by its name (masks alone)."""
    synthetic = any(scan.dataset_kind == "synthetic" for scan in _scans())
    synthetic |= any(subject.startswith("synth") for subject in subjects)
    return "synthetic" if synthetic else "real_ct_drr"


def _scans() -> list[data.Subject]:
    """The scans of --data with a CT; none if it is a folder of masks or meshes alone."""
    try:
        return data.find_subjects(str(DATA.value))
    except data.DataError:
        return []


def rejected_entries(rejected: Sequence[data.Rejected]) -> list[dict[str, str]]:
    """What was left out and why, for a record."""
    return [{**dataclasses.asdict(each), "source": each.source.name} for each in rejected]


def folder_name() -> str:
    """Name of the data folder, for the record."""
    return pathlib.Path(str(DATA.value)).absolute().name
