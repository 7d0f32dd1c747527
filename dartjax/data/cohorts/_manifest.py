"""Load and save the manifest of a cohort, and find leaks between two cohorts.

    {"format": "dartjax cohort", "version": 1, "name": "...", "ids_hash": "...",
     "subjects": [{"id": "verse400_split-verse253", "patient": "verse400", "split": "test",
                   "layout": "bids", "dataset": "...", "dataset_kind": "real_ct_drr",
                   "ct": "../data/..._ct.nii.gz", "mask": "...", "centroids": null,
                   "ct_hash": "...", "mask_hash": "...", "parents": [], "levels": ["T12", "L1"]}]}

Paths are relative to the manifest's folder. Hashes are `content_hash` of the CT's rounded HU and of
the labels as VerSe numbers (the key `labels` names another numbering of the file). A scan is
therefore recognised after renaming, recompression or a change of its header, but not after
cropping, flipping or resampling.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dartjax._errors import DataError
from dartjax.anatomy import NUMBERINGS
from dartjax.data._atomic import publish_file
from dartjax.data.cohorts._case import ids_hash, names_of
from dartjax.data.cohorts._subject import Subject
from dartjax.data.formats import PathLike, check_keys, list_of_texts, read_json
from dartjax.data.packaged import includes_subject

FORMAT, VERSION = "dartjax cohort", 1
_TEXTS = ("id", "split", "layout", "dataset", "dataset_kind", "ct_hash", "mask_hash")
_KEYS = (*_TEXTS, "patient", "ct", "mask", "centroids", "parents", "levels")
_CHOICES = {
    "split": ("", "training", "validation", "test"),
    "layout": ("bids", "challenge", "ctspine1k", "pairs"),
    "dataset_kind": ("synthetic", "real_ct_drr"),
}


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Scans of a cohort with the hashes of their content, and the levels used of each scan."""

    name: str
    subjects: tuple[Subject, ...]
    levels: Mapping[str, tuple[str, ...]]  # by subject id

    @property
    def ids_hash(self) -> str:
        """Hash of the set of ids, as recorded in result files."""
        return ids_hash(subject.id for subject in self.subjects)


class Leak(NamedTuple):
    """Two scans that must not be in training and test data, and what they share."""

    first: str
    second: str
    reason: str


def save_manifest(
    path: PathLike, manifest: Manifest, *, final_folder: PathLike | None = None
) -> None:
    """Write a manifest atomically.

    Give `final_folder` if the folder of `path` will be renamed afterwards. DataError for a subject
    without hashes, and when the file cannot be written.
    """
    path = Path(path)
    folder = Path(final_folder) if final_folder is not None else path.parent
    unhashed = [s.id for s in manifest.subjects if s.ct_hash is None or s.mask_hash is None]
    if unhashed:
        raise DataError(f"{path}: {unhashed[0]} has no content hash: read the scan first")
    content = {
        "format": FORMAT,
        "version": VERSION,
        "name": manifest.name,
        "ids_hash": manifest.ids_hash,
        "subjects": [_entry(s, manifest.levels.get(s.id, ()), folder) for s in manifest.subjects],
    }
    _write_whole(path, json.dumps(content, indent=1) + "\n")


def load_manifest(path: PathLike) -> Manifest:
    """Load a manifest. The content of the files is checked later, when a scan is read.

    DataError if the file is not a manifest, an entry is invalid, an id occurs twice, or files are
    missing.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(
            f'{path}: not a cohort manifest (no "format": "{FORMAT}"): write one with '
            "dartjax.data.save_manifest"
        )
    if content.get("version") != VERSION:
        raise DataError(
            f"{path}: version {content.get('version')!r} is not supported, only {VERSION}"
        )
    check_keys(str(path), content, ("format", "version", "name", "ids_hash", "subjects"), ())
    if not isinstance(content["name"], str):
        raise DataError(f"{path}: name must be a text, not {content['name']!r}")
    entries = content["subjects"]
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: subjects must be a list of at least one scan")
    folder = Path(path).parent
    subjects = [_subject(f"{path}: subject {i}", e, folder) for i, e in enumerate(entries, 1)]
    check_unique(subjects)
    _check_present(path, subjects)
    levels = {entry["id"]: tuple(entry["levels"]) for entry in entries}
    return Manifest(content["name"], tuple(subjects), levels)


def check_unique(subjects: Iterable[Subject]) -> None:
    """Raise DataError if an id occurs twice."""
    seen: dict[str, Subject] = {}
    for subject in subjects:
        if subject.id in seen:
            raise DataError(
                f"subject {subject.id} occurs twice, in {seen[subject.id].ct_path} and "
                f"{subject.ct_path}: give one of the two datasets"
            )
        seen[subject.id] = subject


def leaks(first: Manifest, second: Manifest) -> list[Leak]:
    """Find all pairs of scans, one from each manifest, that share data or a person.

    Scans leak if they share their id, person, CT, mask or parent; every reason is given. Ids are
    compared under all numbers that VerSe gave a scan. The list is empty if nothing leaks.
    """
    traits = [(subject, _traits(subject)) for subject in second.subjects]
    found = []
    for subject in first.subjects:
        own = _traits(subject)
        found += [
            Leak(subject.id, other.id, " and ".join(reasons))
            for other, theirs in traits
            if (reasons := _shared(own, theirs))
        ]
    return found


def leaks_into_model(manifest: Manifest, card: Mapping[str, Any]) -> list[Leak]:
    """Find the scans that the shape models of a card have seen, by id, person, parent or CT."""
    found = []
    for subject in manifest.subjects:
        own = _traits(subject)
        if any(includes_subject(card, name, subject.ct_hash) for name in own.names):
            found.append(Leak(subject.id, card["name"], "the model was built with it"))
        elif any(includes_subject(card, name) for name in own.parents):
            found.append(Leak(subject.id, card["name"], "the model was built with its parent"))
    return found


class _Traits(NamedTuple):
    id: str
    names: frozenset[str]
    parents: frozenset[str]
    ct_hash: str | None
    mask_hash: str | None


def _traits(subject: Subject) -> _Traits:
    parents = frozenset(name for parent in subject.parents for name in names_of(parent))
    return _Traits(
        subject.id.lower(), names_of(subject.id), parents, subject.ct_hash, subject.mask_hash
    )


def _shared(a: _Traits, b: _Traits) -> list[str]:
    """Return what two scans share, in words; empty if they share nothing."""
    same = {
        "same id": a.id == b.id,
        "same person": bool(a.names & b.names),
        "one was made from the other": bool(a.names & b.parents or a.parents & b.names),
        "made from the same person": bool(a.parents & b.parents),
        "same CT": a.ct_hash is not None and a.ct_hash == b.ct_hash,
        "same mask": a.mask_hash is not None and a.mask_hash == b.mask_hash,
    }
    return [reason for reason, holds in same.items() if holds]


def _entry(subject: Subject, levels: Sequence[str], folder: Path) -> dict[str, Any]:
    def relative(path: Path | None) -> str | None:
        return None if path is None else os.path.relpath(path.absolute(), folder.absolute())

    return {
        **{name: getattr(subject, name) for name in _TEXTS},
        "patient": subject.patient,
        "ct": relative(subject.ct_path),
        "mask": relative(subject.mask_path),
        "centroids": relative(subject.centroids_path),
        "parents": list(subject.parents),
        "levels": list(levels),
        **({} if subject.labels == "verse" else {"labels": subject.labels}),
    }


def _subject(where: str, entry: Any, folder: Path) -> Subject:
    check_keys(where, entry, _KEYS, ("labels",))
    for name in (*_TEXTS, "ct", "mask"):
        if not isinstance(entry[name], str):
            raise DataError(f"{where}: {name} must be a text, not {entry[name]!r}")
    for name, choices in _CHOICES.items():
        if entry[name] not in choices:
            raise DataError(f"{where}: {name} {entry[name]!r} is not one of {', '.join(choices)}")
    if (labels := entry.get("labels", "verse")) not in NUMBERINGS:
        raise DataError(f"{where}: labels {labels!r} is not one of {', '.join(NUMBERINGS)}")
    for name in ("parents", "levels"):
        list_of_texts(f"{where}: {name}", entry[name])
    centroids = entry["centroids"]
    if centroids is not None and not isinstance(centroids, str):
        raise DataError(f"{where}: centroids must be a path or null, not {centroids!r}")
    return Subject(
        **{name: entry[name] for name in _TEXTS},
        ct_path=folder / entry["ct"],
        mask_path=folder / entry["mask"],
        centroids_path=folder / centroids if centroids else None,
        parents=tuple(entry["parents"]),
        labels=labels,
    )


def _check_present(path: PathLike, subjects: Sequence[Subject]) -> None:
    files = [file for s in subjects for file in (s.ct_path, s.mask_path)]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(files)} files are missing, such as {missing[0]}: its "
            "paths are relative to its folder, so move both together or write a new manifest"
        )


def _write_whole(path: Path, text: str) -> None:
    try:
        publish_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
