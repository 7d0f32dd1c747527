"""Build the case of one subject: attenuation, labels and complete vertebrae."""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable
from typing import Literal, cast

import numpy as np
from jaxtyping import Bool, Float, Int16, Shaped, UInt8
from scipy import ndimage

from dartjax._errors import DataError
from dartjax.anatomy import LEVEL_OF_LABEL, MODELLED_LEVELS, label_of
from dartjax.data import formats
from dartjax.image import Volume

DatasetKind = Literal["synthetic", "real_ct_drr"]

BORDER_MM = 2.0  # between a complete vertebra and the image border, and at least one voxel
MIN_VOLUME_CM3, MAX_VOLUME_CM3 = 4.0, 150.0
MIN_LARGEST_PART = 0.95

_VERSE_ID = re.compile(r"(?:verse|gl)\d+", re.IGNORECASE)
_ENTITIES = re.compile(r"_(?:split|dir|ses|acq|run|rec|ce)-[^_]+|_ct$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Case:
    """CT with its vertebra labels on the same grid.

    `levels` are the complete vertebrae from head to foot. `rejected` gives the reason for every
    other labelled vertebra. `parents` are the real people a synthetic subject was made from.
    """

    subject: str
    ct: Volume  # attenuation, 1/mm
    labels: UInt8[np.ndarray, "i j k"]  # VerSe numbers, 0 = background
    levels: tuple[str, ...]
    rejected: dict[str, str]
    dataset: str
    dataset_kind: DatasetKind
    ct_hash: str
    split: str = ""
    parents: tuple[str, ...] = ()

    def label_of(self, level: str) -> int:
        """Return the label of a level. DataError if the level is absent or incomplete."""
        label = label_of(level)
        if level in self.levels:
            return label
        why = self.rejected.get(level, "its label is not in the mask")
        complete = ", ".join(self.levels) or "none"
        raise DataError(
            f"subject {self.subject}: {level} cannot be used: {why}; complete levels: {complete}"
        )


def build_case(
    subject: str,
    hu: Int16[np.ndarray, "i j k"],
    labels: UInt8[np.ndarray, "i j k"],
    affine: Float[np.ndarray, "4 4"],
    *,
    dataset: str,
    kind: DatasetKind,
    split: str = "",
    parents: tuple[str, ...] = (),
) -> Case:
    """Build a case from arrays: find its complete levels and hash the CT."""
    levels, rejected = complete_levels(labels, affine)
    return Case(
        subject=subject,
        ct=formats.to_volume(hu, affine),
        labels=labels,
        levels=levels,
        rejected=rejected,
        dataset=dataset,
        dataset_kind=kind,
        ct_hash=content_hash(hu),
        split=split,
        parents=parents,
    )


def complete_levels(
    labels: UInt8[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Find the complete levels from head to foot, and the reason why each other level is not.

    A complete vertebra lies at least 2 mm and one voxel from the image border, has 95 % of its
    voxels in one connected part, a volume of 4 to 150 cm^3, and is T1 or below (the shape models
    do not cover the neck). Of two neighbours in this list, the lower level must lie nearer to the
    foot, else neither is complete: their labels were exchanged.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    boxes = ndimage.find_objects(labels)
    reasons: dict[str, str] = {}
    heights: dict[str, float] = {}  # of complete levels, mm
    for label, level in LEVEL_OF_LABEL.items():  # head to foot
        box = boxes[label - 1] if label <= len(boxes) else None
        if box is not None:
            inside = labels[box] == label
            reasons[level] = _reason_incomplete(level, inside, box, labels.shape, spacing)
            if not reasons[level]:
                center = np.argwhere(inside).mean(0) + [side.start for side in box]
                heights[level] = float(affine[2, :3] @ center)
    for upper, lower in itertools.pairwise(heights):
        if heights[lower] >= heights[upper]:
            reasons[upper] = reasons[lower] = f"out of order: {lower} lies above {upper}"
    complete = tuple(level for level, reason in reasons.items() if not reason)
    return complete, {level: reason for level, reason in reasons.items() if reason}


def _reason_incomplete(
    level: str,
    inside: Bool[np.ndarray, "a b c"],
    box: tuple[slice, slice, slice],
    shape: tuple[int, ...],
    spacing: Float[np.ndarray, "3"],
) -> str:
    """Return why a vertebra is not complete, or "" if it is complete."""
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


def ids_hash(ids: Iterable[str]) -> str:
    """Hash a set of subject ids, independent of their order: 16 hex digits of SHA-256."""
    return hashlib.sha256("\n".join(sorted(set(ids))).encode()).hexdigest()[:16]


def patient_of(subject: str) -> str:
    """Return the patient of a scan id.

    VerSe names several scans of one patient after the patient: "verse400_split-verse253" and
    "verse400_verse253_CT-iso" -> "verse400". From other ids only BIDS entities and "_ct" are
    dropped: "p1_dir-ax" -> "p1", and "liver_106" is unchanged.
    """
    name = subject.removeprefix("sub-")
    found = _VERSE_ID.match(name)
    return found[0] if found else _ENTITIES.sub("", name)


def names_of(subject: str) -> frozenset[str]:
    """Return all names of a scan in lower case: its id, its patient, its numbers in VerSe releases.

    "verse400_split-verse253" therefore shares a name with "verse253".
    """
    name = subject.removeprefix("sub-").lower()
    return frozenset({name, patient_of(name), *_VERSE_ID.findall(name)})


def content_hash(array: Shaped[np.ndarray, "i j k"]) -> str:
    """Hash the shape, type and values of an array in NIfTI order (first index fastest).

    The SHA-256 does not depend on the file name, the compression or the header.
    """
    digest = hashlib.sha256(f"{array.shape}{array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(array.T).data)
    return digest.hexdigest()
