"""Cohorts in VerSe's layout, and which of their vertebrae are whole.

Understood, under any folder: `rawdata/sub-X/*_ct.nii.gz` beside
`derivatives/sub-X/*_seg-vert_msk.nii.gz` (BIDS, also below `training`, `validation`, `test` or
`dataset-*`), a folder of ONE subject with both files, and the old flat pairs `X.nii.gz`,
`X_seg.nii.gz`.
"""

import dataclasses
import json
import re
import warnings
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Bool, Float, Int16, UInt8
from scipy import ndimage

from dartjax.data import _nifti
from dartjax.data._case import Case, DatasetKind, content_hash
from dartjax.data._errors import DataError
from dartjax.data._levels import LEVEL_OF_LABEL, MODELLED_LEVELS

BORDER_MM = 2.0  # a whole vertebra keeps this clear of the image's border, at least one voxel
MIN_VOLUME_CM3, MAX_VOLUME_CM3 = 4.0, 150.0
MIN_LARGEST_PART = 0.95

_MASK_NAME = re.compile(r"(?P<key>.+?)_(seg-vert_msk|seg)\.nii(\.gz)?")
_CT_NAME = re.compile(r"(?P<key>.+?)(_ct)?\.nii(\.gz)?")
_LAYOUT = "expected rawdata/sub-X/*_ct.nii.gz with derivatives/sub-X/*_seg-vert_msk.nii.gz"


@dataclasses.dataclass(frozen=True)
class Subject:
    """Where the files of one scan lie; `id` is the file's prefix without "sub-"."""

    id: str
    ct_path: Path
    mask_path: Path
    centroids_path: Path | None = None
    dataset: str = ""
    dataset_kind: DatasetKind = "real_ct_drr"


def find_subjects(folder: _nifti.PathLike) -> list[Subject]:
    """Scans of a cohort folder that have a CT and a vertebra mask, sorted by id.

    A CT without a mask is left out with a warning. DataError if nothing is found, or if one
    id occurs twice (VerSe'19 and VerSe'20 share scans: point at one of them).
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    files = sorted(path for path in root.rglob("*.nii*") if path.is_file())
    masks = _by_key(root, files, _MASK_NAME)
    cts = _by_key(root, [path for path in files if not _is_segmentation(path)], _CT_NAME)
    _report_unpaired(root, cts, masks)
    subjects = [_subject(key, cts[key], masks[key]) for key in cts.keys() & masks.keys()]
    _check_unique(subjects)
    return sorted(subjects, key=lambda subject: subject.id)


def load_case(subject: Subject) -> Case:
    """Read one scan. DataError for files that cannot be used, CT and mask on different grids,
    or a mask without any vertebra."""
    hu, affine = _nifti.read_hu(subject.ct_path)
    labels, mask_affine = _nifti.load_labels(subject.mask_path)
    _nifti.check_same_grid(
        (subject.ct_path, hu.shape, affine), (subject.mask_path, labels.shape, mask_affine)
    )
    if not labels.any():
        raise DataError(f"{subject.mask_path}: the mask holds no vertebra label")
    return build_case(
        subject.id, hu, labels, affine, dataset=subject.dataset, kind=subject.dataset_kind
    )


def build_case(
    subject: str,
    hu: Int16[np.ndarray, "i j k"],
    labels: UInt8[np.ndarray, "i j k"],
    affine: Float[np.ndarray, "4 4"],
    *,
    dataset: str,
    kind: DatasetKind,
) -> Case:
    """Case of arrays already in memory: judges which levels are whole and hashes the CT."""
    levels, rejected = judge_levels(labels, affine)
    return Case(
        subject=subject,
        ct=_nifti.to_volume(hu, affine),
        labels=labels,
        levels=levels,
        rejected=rejected,
        dataset=dataset,
        dataset_kind=kind,
        ct_hash=content_hash(hu),
    )


def judge_levels(
    labels: UInt8[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Complete levels, head to foot, and the reason against each other one.

    Complete: at least 2 mm and one voxel away from the image's border, one dominant connected
    part (95 %), 4 to 150 cm^3, and T1 or below (the shape models have no neck).
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    boxes = ndimage.find_objects(labels)
    reasons = {}
    for label, level in LEVEL_OF_LABEL.items():  # head to foot
        box = boxes[label - 1] if label <= len(boxes) else None
        if box is not None:
            inside = labels[box] == label
            reasons[level] = _reason_against(level, inside, box, labels.shape, spacing)
    complete = tuple(level for level, reason in reasons.items() if not reason)
    return complete, {level: reason for level, reason in reasons.items() if reason}


def _reason_against(
    level: str,
    inside: Bool[np.ndarray, "a b c"],
    box: tuple[slice, slice, slice],
    shape: tuple[int, ...],
    spacing: Float[np.ndarray, "3"],
) -> str:
    """Why a vertebra is not complete; "" if it is."""
    margin = np.maximum(np.ceil(BORDER_MM / spacing - 1e-3), 1)
    low = np.array([side.start for side in box])
    high = np.array(shape) - np.array([side.stop for side in box])
    if (np.minimum(low, high) < margin).any():
        return "cut by the border of the image, or within 2 mm of it"
    if level not in MODELLED_LEVELS:
        return "cervical, the shape models cover T1 to L6"
    parts, _ = cast(tuple[np.ndarray, int], ndimage.label(inside, np.ones((3, 3, 3))))
    share = np.bincount(parts.ravel())[1:].max() / inside.sum()
    if share < MIN_LARGEST_PART:
        return f"in pieces: the largest is {share:.0%} of the label"
    volume = inside.sum() * spacing.prod() / 1000.0
    if not MIN_VOLUME_CM3 <= volume <= MAX_VOLUME_CM3:
        return f"implausible volume of {volume:.1f} cm3"
    return ""


def _is_segmentation(path: Path) -> bool:
    return re.search(r"_(seg|msk|mask)[._-]|_(msk|mask)\.nii", path.name) is not None


def _by_key(root: Path, files: list[Path], name: re.Pattern[str]) -> dict[tuple[Path, str], Path]:
    """Files by (dataset root, prefix): CT and mask of one scan share both."""
    matches = ((path, name.fullmatch(path.name)) for path in files)
    return {(_dataset_root(root, path), m["key"]): path for path, m in matches if m}


def _dataset_root(root: Path, path: Path) -> Path:
    """The folder above rawdata or derivatives, else the file's own folder."""
    for parent in path.relative_to(root).parents:
        if parent.name in ("rawdata", "derivatives"):
            return root / parent.parent
    return path.parent


def _subject(key: tuple[Path, str], ct_path: Path, mask_path: Path) -> Subject:
    root, prefix = key
    centroids = sorted(mask_path.parent.glob(f"{prefix}_*ctd.json"))
    about = root / "dataset_description.json"
    facts = _description(about) if about.is_file() else {}
    synthetic = bool(facts.get("Synthetic")) or prefix.removeprefix("sub-").startswith("synth")
    return Subject(
        id=prefix.removeprefix("sub-"),
        ct_path=ct_path,
        mask_path=mask_path,
        centroids_path=centroids[0] if centroids else None,
        dataset=str(facts.get("Name", root.resolve().name)),
        dataset_kind="synthetic" if synthetic else "real_ct_drr",
    )


def _description(path: Path) -> dict[str, object]:
    try:
        facts = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    return facts if isinstance(facts, dict) else {}


def _report_unpaired(
    root: Path, cts: dict[tuple[Path, str], Path], masks: dict[tuple[Path, str], Path]
) -> None:
    lonely = [cts[key] for key in sorted(cts.keys() - masks.keys())]
    if not cts.keys() & masks.keys():
        found = f"{len(cts)} CT images and {len(masks)} vertebra masks, none of them a pair"
        example = f", such as {lonely[0]}" if lonely else ""
        raise DataError(f"{root}: found {found}{example}: {_LAYOUT}")
    if lonely:
        names = ", ".join(path.name for path in lonely[:5])
        warnings.warn(
            f"{root}: {len(lonely)} CT images without a vertebra mask are left out: {names}",
            stacklevel=3,
        )


def _check_unique(subjects: list[Subject]) -> None:
    seen: dict[str, Subject] = {}
    for subject in subjects:
        if subject.id in seen:
            raise DataError(
                f"subject {subject.id} occurs twice, in {seen[subject.id].ct_path} and "
                f"{subject.ct_path}: point at one of the two datasets"
            )
        seen[subject.id] = subject
