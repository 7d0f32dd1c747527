"""Interpret file names of VerSe: kind of file, split and release of a scan.

Two releases of the same scans exist. The subject-based one (BIDS) has `rawdata/sub-X/*_ct.nii.gz`
next to `derivatives/sub-X/*_seg-vert_msk.nii.gz`, below folders named after the split
(`training`, `dataset-verse19validation`, `03_test`). The challenges' has flat pairs: VerSe'19
`verse014.nii.gz`, `verse014_seg.nii.gz`, `verse014_ctd.json`; VerSe'20 `GL017_CT_ax.nii.gz`,
`GL017_CT_ax_seg.nii.gz`, `GL017_CT_ax_iso-ctd.json`.
Source: github.com/anjany/verse and the wikis of osf.io/4skx2 and osf.io/b2wxj.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from dartjax.data.cohorts._case import names_of
from dartjax.data.cohorts._subject import Split

MASK_NAME = re.compile(r"(?P<key>.+?)(_ct)?_(seg-vert_msk|seg)\.nii(\.gz)?")
CT_NAME = re.compile(r"(?P<key>.+?)(_ct)?\.nii(\.gz)?")

_SEGMENTATION = re.compile(r"_(seg|msk|mask)[._-]|_(msk|mask)\.nii")
_SPLIT = re.compile(r"(?:^|[^a-z])(train|val|test)(?:ing|idation)?$", re.IGNORECASE)
_SPLITS: dict[str, Split] = {"train": "training", "val": "validation", "test": "test"}
# "All verse IDs smaller than 450 were already present in Verse19" (wiki of osf.io/b2wxj).
_FIRST_OF_VERSE20 = 450


def is_segmentation(path: Path) -> bool:
    """Return whether a NIfTI file is a mask of any kind, by its name."""
    return _SEGMENTATION.search(path.name) is not None


def dataset_root(root: Path, path: Path) -> Path:
    """Return the folder above rawdata or derivatives, else the file's own folder."""
    for parent in path.relative_to(root).parents:
        if parent.name in ("rawdata", "derivatives"):
            return root / parent.parent
    return path.parent


def split_of(root: Path, path: Path) -> Split:
    """Return the split in the names of a file's folders, innermost first; "" if there is none."""
    folders = [*reversed(path.relative_to(root).parent.parts), root.resolve().name]
    for name in folders:
        if found := _SPLIT.search(name):
            return _SPLITS[found[1].lower()]
    return ""


def centroid_file_of(mask_path: Path, key: str) -> Path | None:
    """Find the centroid file of a mask, or None.

    Its name is `KEY_seg-subreg_ctd.json`, `KEY_ctd.json` or `KEY_iso-ctd.json`. Of several, that on
    the grid of the mask is taken before one of the 1 mm copy (iso), then the first by name.
    """
    named = re.compile(re.escape(key) + r"(_seg-[a-z]+)?[_-](iso-)?ctd(-iso)?\.json")
    matched = [(named.fullmatch(p.name), p) for p in mask_path.parent.glob("*.json")]
    found = [(bool(m[2] or m[3]), p.name, p) for m, p in matched if m]
    return min(found)[2] if found else None


def is_verse(subject_id: str) -> bool:
    """Return whether an id is from VerSe: `verseNNN` or `GLNNN`."""
    return re.match(r"(verse|gl)\d{3}(?!\d)", subject_id, re.IGNORECASE) is not None


def is_verse19(subject_id: str) -> bool:
    """Return whether a scan is from VerSe'19: one of its VerSe numbers is below 450."""
    numbers = _verse_numbers(names_of(subject_id))
    return is_verse(subject_id) and any(n < _FIRST_OF_VERSE20 for n in numbers)


def _verse_numbers(names: Iterable[str]) -> list[int]:
    return [int(name[5:]) for name in names if re.fullmatch(r"verse\d+", name)]
