"""Storage of a cohort of synthetic subjects in VerSe's BIDS layout.

    dataset_description.json        Name "SynthVerSe", "Synthetic": true, seed, commit, options
    participants.tsv                sex, age, family and real parents of every subject
    rawdata/sub-synth0000/sub-synth0000_ct.nii.gz                    int16 HU
    derivatives/sub-synth0000/sub-synth0000_seg-vert_msk.nii.gz      uint8, VerSe's labels
    derivatives/sub-synth0000/sub-synth0000_seg-subreg_ctd.json      body centres, VerSe's form
    derivatives/sub-synth0000/sub-synth0000_synthverse.json          everything else

A subject is written next to the cohort and then moved into it, rawdata last: a subject with
rawdata is complete.
"""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from dartjax._errors import DataError
from dartjax.anatomy import level_of
from dartjax.data import publish_file, read_json, save_centroids
from dartjax.synthverse._subject import VERSION, SyntheticSubject, subject_id

NAME = "SynthVerSe"
DESCRIPTION = "dataset_description.json"
_COMPRESSION = 1  # noise does not compress: higher levels take seconds and save 3 %


def open_cohort(folder: Path, facts: dict[str, Any]) -> None:
    """Create a cohort's folder with its description, or check an existing one.

    An existing cohort must have the same `facts` (seed, commit and options); only the commit may
    differ. DataError for another cohort, and for a folder that cannot be written.
    """
    path = folder / DESCRIPTION
    description = {
        "Name": NAME,
        "BIDSVersion": "1.6.0",
        "DatasetType": "raw",
        "Synthetic": True,
        "Note": "Synthetic anatomy made by dartjax. Not VerSe, and no patient's data.",
        "GeneratorVersion": VERSION,
        **facts,
    }
    if path.is_file():
        _check_same(folder, read_json(path), description)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(entry.name != DESCRIPTION for entry in folder.iterdir()):
            raise DataError(f"{folder} is not empty: give a new folder for the cohort")
        _write_text(path, json.dumps(description, indent=1) + "\n")
    except OSError as error:
        raise DataError(
            f"{folder}: the cohort cannot be written here ({error.strerror})"
        ) from error


def has_subject(folder: Path, number: int) -> bool:
    """Return whether the cohort already contains the complete subject."""
    return (folder / "rawdata" / f"sub-{subject_id(number)}").is_dir()


def save_subject(folder: Path, subject: SyntheticSubject) -> None:
    """Write one subject atomically. DataError when it cannot be written."""
    name = f"sub-{subject.id}"
    partial = folder.parent / f".{folder.name}.{name}.partial"  # left by an interrupted run
    shutil.rmtree(partial, ignore_errors=True)
    raw, derived = partial / "rawdata", partial / "derivatives"
    try:
        raw.mkdir(parents=True)
        derived.mkdir()
        _save_nifti(raw / f"{name}_ct.nii.gz", subject.hu, subject.affine)
        _save_nifti(derived / f"{name}_seg-vert_msk.nii.gz", subject.labels, subject.affine)
        centers = {
            level_of(label): subject.affine[:3, :3] @ point + subject.affine[:3, 3]
            for label, point in subject.centroids.items()
        }
        path = derived / f"{name}_seg-subreg_ctd.json"
        save_centroids(path, centers, subject.labels.shape, subject.affine)
        text = json.dumps(subject.facts, indent=1) + "\n"
        (derived / f"{name}_synthverse.json").write_text(text, encoding="utf-8")
        for source in (derived, raw):  # rawdata last: it marks the subject as complete
            target = folder / source.name / name
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            source.rename(target)
    except OSError as error:
        raise DataError(
            f"{folder}: {name} could not be written ({error.strerror}) and was removed: free disk "
            "space and run again, complete subjects are kept"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def subject_facts(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the facts of each complete subject, by id, in order."""
    names = sorted(path.name for path in (folder / "rawdata").glob("sub-synth*"))
    paths = {name: folder / "derivatives" / name / f"{name}_synthverse.json" for name in names}
    return {name.removeprefix("sub-"): read_json(path) for name, path in paths.items()}


def save_participants(folder: Path) -> None:
    """Write participants.tsv from the subjects of the cohort."""
    rows = ["participant_id\tsex\tage\tfamily\tparents"]
    for name, facts in subject_facts(folder).items():
        parents = real_parents(facts)
        age, sex = facts["age_years"], facts["sex"]
        rows.append(f"sub-{name}\t{sex}\t{age}\t{facts['family']}\t{','.join(parents)}")
    _write_text(folder / "participants.tsv", "\n".join(rows) + "\n")


def real_parents(facts: dict[str, Any]) -> list[str]:
    """List the real subjects whose meshes a subject is made of; none for the parametric family."""
    sources = facts["parents"].values()
    return sorted({source.split()[0] for source in sources if source != "parametric"})


def _save_nifti(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as packed,
    ):
        packed.write(image.to_bytes())


def _check_same(folder: Path, found: Any, wanted: dict[str, Any]) -> None:
    if not isinstance(found, dict) or found.get("Name") != NAME:
        raise DataError(f"{folder}: {DESCRIPTION} describes another dataset: give a new folder")
    wanted = json.loads(json.dumps(wanted))
    different = [k for k in wanted if k != "Commit" and found.get(k) != wanted[k]]
    if different:
        old = ", ".join(f"{k}={found.get(k)}" for k in different)
        raise DataError(
            f"{folder}: this cohort was made with other settings ({old}): give the same settings "
            "to continue it, or a new folder"
        )


def _write_text(path: Path, text: str) -> None:
    publish_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))
