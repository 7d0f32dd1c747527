"""Find the scans of a cohort in any supported layout.

The layouts may be mixed, at any depth: VerSe's subject folders and flat pairs (`_verse`),
CTSpine1K's parallel folders (`_ctspine1k`), and other pairs of NIfTI files with the same stem. A
manifest written by `save_manifest` is supported too.
"""

import csv
import dataclasses
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

from dartjax._documents import read_text, truth_of
from dartjax._errors import DataError
from dartjax.anatomy import Numbering
from dartjax.data import formats
from dartjax.data.cohorts._ctspine1k import (
    add_file,
    is_ctspine1k,
    parallel_folders,
    read_splits,
)
from dartjax.data.cohorts._manifest import check_unique, load_manifest
from dartjax.data.cohorts._subject import Layout, Split, Subject
from dartjax.data.cohorts._verse import (
    CT_NAME,
    MASK_NAME,
    centroid_file_of,
    dataset_root,
    is_segmentation,
    is_verse,
    split_of,
)
from dartjax.data.formats import read_json

_LAYOUTS = (
    "expected rawdata/sub-X/*_ct.nii.gz with derivatives/sub-X/*_seg-vert_msk.nii.gz (VerSe), "
    "volumes/SOURCE/X.nii.gz with labels/SOURCE/X_seg.nii.gz (CTSpine1K), pairs X.nii.gz with "
    "X_seg.nii.gz, or the manifest.json of such a cohort"
)
_SYNTHETIC = 'dataset_description.json: "Synthetic"'
_SPLITS = ("training", "validation", "test")

Key = tuple[Path, str]  # (dataset root, prefix): CT and mask of one scan share both
Keyed = dict[Key, Path]


class _DatasetFacts(NamedTuple):
    """Metadata files of a dataset."""

    description: dict[str, Any]  # dataset_description.json
    participants: dict[str, dict[str, str]]  # rows of participants.tsv by subject
    splits: dict[str, Split]  # data_split.txt, by stem


def find_subjects(cohort: formats.PathLike, *, labels: Numbering = "verse") -> list[Subject]:
    """Find the scans of a cohort folder or manifest that have a CT and a mask, sorted by id.

    `labels` is the numbering of the masks in a folder; a manifest knows its own. Hidden files and
    folders are passed over. A CT without a mask is skipped with a warning. DataError if nothing is
    found, a folder cannot be read, or one id occurs twice (VerSe'19 and VerSe'20 share scans: give
    one of the two), and for two files of one scan.
    """
    root = Path(cohort)
    if root.is_file() and root.suffix == ".json":
        return list(load_manifest(root).subjects)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder or manifest (.json)")
    files = _nifti_files(root)
    cts, masks = parallel_folders(root, files)
    parallel = set(masks)
    others = sorted(set(files) - set(cts.values()) - set(masks.values()))
    masks |= _by_key(root, others, MASK_NAME)
    images = [path for path in others if not is_segmentation(path)]
    cts |= _by_key(root, images, CT_NAME)
    _report_unpaired(root, cts, masks)
    paired = sorted(cts.keys() & masks.keys())
    facts = {group: _dataset_facts(root, group) for group, _ in paired}
    subjects = [
        _subject(root, key, cts[key], masks[key], facts[key[0]], is_parallel=key in parallel)
        for key in paired
    ]
    subjects = [dataclasses.replace(subject, labels=labels) for subject in subjects]
    subjects.sort(key=lambda subject: subject.id)
    check_unique(subjects)
    return subjects


def _nifti_files(root: Path) -> list[Path]:
    def raise_data_error(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename}: the folder cannot be read ({error.strerror})")

    found = [
        Path(folder, name)
        for folder, folders, names in os.walk(root, onerror=raise_data_error)
        for name in _without_hidden(folders, names)
        if name.endswith((".nii", ".nii.gz"))
    ]
    return sorted(path for path in found if path.is_file())


def _without_hidden(folders: list[str], names: list[str]) -> list[str]:
    """Return the names of files that are not hidden, and keep `os.walk` from hidden folders, such
    as those that a killed run leaves."""
    folders[:] = [name for name in folders if not name.startswith(".")]
    return [name for name in names if not name.startswith(".")]


def _by_key(root: Path, files: Sequence[Path], name: re.Pattern[str]) -> Keyed:
    found: Keyed = {}
    for path in files:
        if matched := name.fullmatch(path.name):
            add_file(found, (dataset_root(root, path), matched["key"]), path)
    return found


def _subject(
    root: Path, key: Key, ct_path: Path, mask_path: Path, facts: _DatasetFacts, *, is_parallel: bool
) -> Subject:
    group, prefix = key
    subject_id = prefix.removeprefix("sub-")
    layout = _layout_of(root, group, subject_id, mask_path, is_parallel)
    row = facts.participants.get(subject_id, {})
    synthetic = truth_of(_SYNTHETIC, facts.description.get("Synthetic")) or subject_id.startswith(
        "synth"
    )
    return Subject(
        id=subject_id,
        ct_path=ct_path,
        mask_path=mask_path,
        centroids_path=centroid_file_of(mask_path, prefix),
        dataset=str(facts.description.get("Name", _default_name(root, group, layout))),
        dataset_kind="synthetic" if synthetic else "real_ct_drr",
        split=_split_in_table(subject_id, row)
        or facts.splits.get(prefix)
        or split_of(root, mask_path),
        layout=layout,
        parents=tuple(_cell(row, "parents").replace(",", " ").split()),
    )


def _layout_of(
    root: Path, group: Path, subject_id: str, mask_path: Path, is_parallel: bool
) -> Layout:
    if is_parallel:
        return "ctspine1k" if is_ctspine1k(root, group) else "pairs"
    if mask_path.name.endswith(("_seg-vert_msk.nii.gz", "_seg-vert_msk.nii")):
        return "bids"
    return "challenge" if is_verse(subject_id) else "pairs"


def _default_name(root: Path, group: Path, layout: Layout) -> str:
    if layout == "ctspine1k":
        return f"CTSpine1K {group.name}"
    return (group if layout == "bids" else root).resolve().name


def _cell(row: dict[str, str], column: str) -> str:
    value = (row.get(column) or "").strip()
    return "" if value == "n/a" else value  # BIDS' word for a missing value


def _split_in_table(subject_id: str, row: dict[str, str]) -> Split:
    split = _cell(row, "split").lower()
    if split not in ("", *_SPLITS):
        raise DataError(
            f"participants.tsv: the split {split!r} of {subject_id} is not one of "
            f"{', '.join(_SPLITS)}"
        )
    return cast(Split, split)


def _dataset_facts(root: Path, group: Path) -> _DatasetFacts:
    """Read the nearest metadata files, from the dataset's folder up to the cohort's root."""
    folders = [group, *(folder for folder in group.parents if folder.is_relative_to(root))]
    description = _nearest(folders, "dataset_description.json")
    participants = _nearest(folders, "participants.tsv")
    splits = next((found for f in folders if (found := read_splits(f))), {})
    content = read_json(description) if description else {}
    rows = _participants(participants) if participants else {}
    return _DatasetFacts(content if isinstance(content, dict) else {}, rows, splits)


def _nearest(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _participants(path: Path) -> dict[str, dict[str, str]]:
    lines = read_text(path).splitlines()
    try:
        delimiter = next((mark for mark in "\t,;" if mark in "".join(lines[:1])), "\t")
        table = csv.DictReader(lines, delimiter=delimiter)
        rows = [{(k or "").strip().lower(): v for k, v in row.items()} for row in table]
        columns = [(name or "").strip().lower() for name in table.fieldnames or ()]
    except csv.Error as error:
        raise DataError(f"{path}: not a readable table ({error})") from error
    if "participant_id" not in columns:
        raise DataError(f"{path}: no column participant_id: its columns are {columns}")
    if len(set(columns)) < len(columns):
        raise DataError(f"{path}: two columns have the same name: {columns}")
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        subject = (row["participant_id"] or "").strip().removeprefix("sub-")
        if subject in found and row != found[subject]:
            raise DataError(f"{path}: {subject} is listed twice with different values")
        found[subject] = row
    return found


def _report_unpaired(root: Path, cts: Keyed, masks: Keyed) -> None:
    unpaired = [cts[key] for key in sorted(cts.keys() - masks.keys())]
    if not cts.keys() & masks.keys():
        found = f"{len(cts)} CT images and {len(masks)} vertebra masks, none of them a pair"
        example = f", such as {unpaired[0]}" if unpaired else ""
        raise DataError(f"{root}: found {found}{example}: {_LAYOUTS}")
    if unpaired:
        names = ", ".join(path.name for path in unpaired[:5])
        warnings.warn(
            f"{root}: {len(unpaired)} CT images without a vertebra mask are skipped: {names}",
            stacklevel=3,
        )
