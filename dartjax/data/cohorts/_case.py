"""One subject ready for use: attenuation, labels, and which vertebrae are whole."""

import dataclasses
import hashlib
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

BORDER_MM = 2.0  # a whole vertebra keeps this clear of the image's border, at least one voxel
MIN_VOLUME_CM3, MAX_VOLUME_CM3 = 4.0, 150.0
MIN_LARGEST_PART = 0.95

_VERSE_ID = re.compile(r"(?:verse|gl)\d+", re.IGNORECASE)
_ENTITIES = re.compile(r"_(?:split|dir|ses|acq|run|rec|ce)-[^_]+|_ct$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Case:
    """A CT with its vertebra labels on the same grid.

    `levels` are the complete vertebrae from head to foot, `rejected` says of every other
    labelled vertebra why it may not be used. `parents` are the real people a synthetic subject
    was made from.
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
        """Label of a complete level of this case; DataError if it is absent or incomplete."""
        label = label_of(level)
        if level in self.levels:
            return label
        why = self.rejected.get(level, "its label is not in the mask")
        whole = ", ".join(self.levels) or "none"
        raise DataError(f"subject {self.subject}: {level} cannot be used: {why}; whole: {whole}")


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
    """Case of arrays already in memory: judges which levels are whole and hashes the CT."""
    levels, rejected = judge_levels(labels, affine)
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


def ids_hash(ids: Iterable[str]) -> str:
    """Fingerprint of a set of subject ids, whatever their order: 16 hex digits of SHA-256."""
    return hashlib.sha256("\n".join(sorted(set(ids))).encode()).hexdigest()[:16]


def patient_of(subject: str) -> str:
    """The person behind a scan id. VerSe names several scans of one person after the person:
    "verse400_split-verse253" and "verse400_verse253_CT-iso" -> "verse400". Elsewhere only
    BIDS entities and "_ct" are dropped: "p1_dir-ax" -> "p1", "liver_106" as it is."""
    name = subject.removeprefix("sub-")
    found = _VERSE_ID.match(name)
    return found[0] if found else _ENTITIES.sub("", name)


def names_of(subject: str) -> frozenset[str]:
    """Every name one scan goes by, in lower case: its id, its person, and the number the same
    scan has in another release, so that "verse400_split-verse253" meets "verse253"."""
    name = subject.removeprefix("sub-").lower()
    return frozenset({name, patient_of(name), *_VERSE_ID.findall(name)})


def content_hash(array: Shaped[np.ndarray, "i j k"]) -> str:
    """SHA-256 of an array's shape, type and values in NIfTI's order (first index fastest): the
    same for any file name, compression and header."""
    digest = hashlib.sha256(f"{array.shape}{array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(array.T).data)
    return digest.hexdigest()
