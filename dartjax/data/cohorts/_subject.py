"""Describe and read one scan of a cohort on disk."""

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int16, UInt8

from dartjax._errors import DataError
from dartjax.anatomy import Numbering
from dartjax.data import formats
from dartjax.data.cohorts._case import Case, DatasetKind, build_case, content_hash, patient_of

Split = Literal["", "training", "validation", "test"]
Layout = Literal["bids", "challenge", "ctspine1k", "pairs"]


@dataclasses.dataclass(frozen=True)
class Subject:
    """Files and metadata of one scan; `id` is the file's prefix without "sub-".

    `split` is "" if the cohort has none. `parents` are the real people a synthetic subject was made
    from. The hashes are set for subjects of a manifest; they are checked when the scan is read.
    """

    id: str
    ct_path: Path
    mask_path: Path
    centroids_path: Path | None = None
    dataset: str = ""
    dataset_kind: DatasetKind = "real_ct_drr"
    split: Split = ""
    layout: Layout = "pairs"
    parents: tuple[str, ...] = ()
    ct_hash: str | None = None
    mask_hash: str | None = None
    labels: Numbering = "verse"  # of the mask

    @property
    def patient(self) -> str:
        """Patient of this scan; a patient may have several scans."""
        return patient_of(self.id)


class Scan(NamedTuple):
    """Arrays of one scan as stored; the files are checked, the completeness of levels is not."""

    hu: Int16[np.ndarray, "i j k"]
    labels: UInt8[np.ndarray, "i j k"]  # VerSe numbers, 0 = background
    affine: Float[np.ndarray, "4 4"]  # world_from_voxel, RAS+ mm
    ct_hash: str
    mask_hash: str


def read_scan(subject: Subject) -> Scan:
    """Read the CT and the mask of one scan.

    DataError for files that cannot be used, CT and mask on different grids, a mask without any
    vertebra, and content that differs from the manifest's hashes.
    """
    hu, affine = formats.read_hu(subject.ct_path)
    labels, mask_affine = formats.load_labels(subject.mask_path, labels=subject.labels)
    formats.check_same_grid(
        (subject.ct_path, hu.shape, affine), (subject.mask_path, labels.shape, mask_affine)
    )
    if not labels.any():
        raise DataError(f"{subject.mask_path}: the mask holds no vertebra label")
    scan = Scan(hu, labels, affine, content_hash(hu), content_hash(labels))
    _check_unchanged(subject.ct_path, subject.ct_hash, scan.ct_hash)
    _check_unchanged(subject.mask_path, subject.mask_hash, scan.mask_hash)
    return scan


def load_case(subject: Subject, *, labels: Numbering | None = None) -> Case:
    """Read one scan of any layout and find its complete levels. DataError as for `read_scan`.

    `labels` is the numbering of the mask; default: that of the subject.
    """
    if labels is not None:
        subject = dataclasses.replace(subject, labels=labels)
    scan = read_scan(subject)
    return build_case(
        subject.id,
        scan.hu,
        scan.labels,
        scan.affine,
        dataset=subject.dataset,
        kind=subject.dataset_kind,
        split=subject.split,
        parents=subject.parents,
    )


def _check_unchanged(path: Path, expected: str | None, found: str) -> None:
    if expected is not None and expected != found:
        raise DataError(
            f"{path}: its content changed after the manifest was written (SHA-256 {found[:12]}, "
            f"recorded {expected[:12]}): restore the file, or write a new manifest with "
            "dartjax.data.save_manifest"
        )
