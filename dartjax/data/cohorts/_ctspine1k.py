"""Read the layout of CTSpine1K: images and masks in parallel folders, one per source.

    CTSpine1K/                                     also data/ or images/, label/ or masks/
    ├── volumes/COLONOG/1.3.6.1.4.1.9328.50.4.0001.nii.gz
    ├── labels/COLONOG/1.3.6.1.4.1.9328.50.4.0001_seg.nii.gz
    └── metadata/data_split.txt

Labels are numbered as in VerSe: C1-L5 = 1-24 and L6 = 25; the sacrum is not labelled. Unlike in
VerSe, vertebrae that are cut by the image border are labelled. Masks of VerSe scans keep their
VerSe names.
Sources: github.com/MIRACLE-Center/CTSpine1K (README, data_split.txt, Task056_VerSe2019.py) and
huggingface.co/datasets/alexanderdann/CTSpine1K (folders; public test = validation).
"""

import re
from collections.abc import Iterable
from pathlib import Path

from dartjax._documents import read_text
from dartjax._errors import DataError
from dartjax.data.cohorts._subject import Split
from dartjax.data.cohorts._verse import is_segmentation

IMAGE_FOLDERS = ("volumes", "data", "images", "imagestr", "imagests")
LABEL_FOLDERS = ("labels", "label", "masks", "labelstr", "labelsts")
SPLIT_FILES = ("data_split.txt", "metadata/data_split.txt")

_STEM = re.compile(r"(?P<key>.+?)(_0000)?(_ct)?(_seg|_mask|_label)?\.nii(\.gz)?")
_SECTIONS: dict[str, Split] = {
    "trainset:": "training",
    "test_public:": "validation",
    "test_private:": "test",
}
# The four sources as the README spells them; other parallel folders are treated as pairs.
_SOURCE = re.compile(r"colon(og)?|hnscc(-3dct-rt)?|msd[ _-]?t10|covid-?19", re.IGNORECASE)

Keyed = dict[tuple[Path, str], Path]


def parallel_folders(root: Path, files: Iterable[Path]) -> tuple[Keyed, Keyed]:
    """Sort files of parallel folders into images and masks, by (home/source, stem).

    Files outside such folders are in neither result.
    """
    placed = [(place, path) for path in files if (place := _place(root, path))]
    homes = {home for (kind, home, _), _ in placed if kind == "label"}
    cts: Keyed = {}
    masks: Keyed = {}
    for (kind, home, source), path in placed:
        stem = _STEM.fullmatch(path.name)
        if home in homes and stem is not None:
            add_file(masks if kind == "label" else cts, (home / source, stem["key"]), path)
    return cts, masks


def add_file(found: Keyed, key: tuple[Path, str], path: Path) -> None:
    """Add the image or the mask of a scan. DataError if it has one already."""
    if key in found:
        raise DataError(f"{path}: a second file for the scan of {found[key]}: keep one of the two")
    found[key] = path


def is_ctspine1k(root: Path, group: Path) -> bool:
    """Return whether a home/source folder belongs to CTSpine1K.

    This is decided by the name of the source, or of a folder above it up to the cohort's root.
    """
    above = (root.resolve().name, *group.relative_to(root).parts)
    return bool(_SOURCE.fullmatch(group.name)) or any("ctspine1k" in x.lower() for x in above)


def read_splits(home: Path) -> dict[str, Split]:
    """Read the split by stem from `data_split.txt` in `home` or its `metadata` folder.

    {} if there is no such file. DataError for a file without the three headings.
    """
    for path in (home / name for name in SPLIT_FILES):
        if path.is_file():
            return _parse_splits(path)
    return {}


def _place(root: Path, path: Path) -> tuple[str, Path, str] | None:
    """Return (kind, home, source) of a file at most one folder below an image or label folder."""
    folders = path.relative_to(root).parent.parts
    for depth in range(1, min(2, len(folders)) + 1):
        name = folders[-depth].lower()
        kind = "label" if name in LABEL_FOLDERS else "image" if name in IMAGE_FOLDERS else ""
        if kind == "image" and is_segmentation(path):
            return None
        if kind:
            home = root.joinpath(*folders[:-depth])
            return kind, home, folders[-1] if depth == 2 else ""
    return None


def _parse_splits(path: Path) -> dict[str, Split]:
    try:
        lines = read_text(path).split("\n")
    except DataError as error:
        raise DataError(f"{error}; download it again or remove it") from error
    splits: dict[str, Split] = {}
    section: Split = ""
    for line in lines:
        section = _SECTIONS.get(line.strip().lower(), section)
        # In the last line of the published file, two names are not separated.
        for name in re.findall(r"\S+?\.nii(?:\.gz)?", line):
            stem = _STEM.fullmatch(name)
            if stem is not None and section:
                splits[stem["key"]] = section
    if not splits:
        raise DataError(f"{path}: not a split file: no scan under {', '.join(_SECTIONS)}")
    return splits
