"""One subject ready for use: attenuation, labels, and which vertebrae are whole."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Literal

import numpy as np
from jaxtyping import Shaped, UInt8

from dartjax.data._errors import DataError
from dartjax.data._levels import label_of
from dartjax.image import Volume

DatasetKind = Literal["synthetic", "real_ct_drr"]


@dataclasses.dataclass(frozen=True)
class Case:
    """A CT with its vertebra labels on the same grid.

    `levels` are the complete vertebrae from head to foot, `rejected` says of every other
    labelled vertebra why it may not be used.
    """

    subject: str
    ct: Volume  # attenuation, 1/mm
    labels: UInt8[np.ndarray, "i j k"]  # VerSe numbers, 0 = background
    levels: tuple[str, ...]
    rejected: dict[str, str]
    dataset: str
    dataset_kind: DatasetKind
    ct_hash: str

    def label_of(self, level: str) -> int:
        """Label of a complete level of this case; DataError if it is absent or incomplete."""
        label = label_of(level)
        if level in self.levels:
            return label
        why = self.rejected.get(level, "its label is not in the mask")
        whole = ", ".join(self.levels) or "none"
        raise DataError(f"subject {self.subject}: {level} cannot be used: {why}; whole: {whole}")


def ids_hash(ids: Iterable[str]) -> str:
    """Fingerprint of a set of subject ids, whatever their order: 16 hex digits of SHA-256."""
    return hashlib.sha256("\n".join(sorted(set(ids))).encode()).hexdigest()[:16]


def patient_of(subject: str) -> str:
    """The person behind a scan id: "verse400_split-verse253" -> "verse400"."""
    return subject.removeprefix("sub-").split("_")[0]


def content_hash(array: Shaped[np.ndarray, "i j k"]) -> str:
    """SHA-256 of an array's shape, type and values in NIfTI's order (first index fastest): the
    same for any file name, compression and header."""
    digest = hashlib.sha256(f"{array.shape}{array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(array.T).data)
    return digest.hexdigest()
