"""A cohort of synthetic subjects on disk, in VerSe's BIDS layout.

    dataset_description.json        Name "SynthVerSe", "Synthetic": true, seed, commit, options
    participants.tsv                sex, age, family and real parents of every subject
    rawdata/sub-synth0000/sub-synth0000_ct.nii.gz                    int16 HU
    derivatives/sub-synth0000/sub-synth0000_seg-vert_msk.nii.gz      uint8, VerSe's labels
    derivatives/sub-synth0000/sub-synth0000_seg-subreg_ctd.json      body centres, VerSe's form
    derivatives/sub-synth0000/sub-synth0000_synthverse.json          everything else

A subject is made beside the cohort and moved in, its rawdata last: a subject with rawdata is
whole.
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
_COMPRESSION = 1  # noise does not compress: higher levels cost seconds and gain 3 %


def open_cohort(folder: Path, facts: dict[str, Any]) -> None:
    """Make the cohort's folder with its description, or check that the one there was made the
    same way (`facts`: seed, commit and options; only the commit may differ).

    DataError for another cohort, and for a folder that cannot be written.
    """
    path = folder / DESCRIPTION
    about = {
        "Name": NAME,
        "BIDSVersion": "1.6.0",
        "DatasetType": "raw",
        "Synthetic": True,
        "Note": "Synthetic anatomy made by dartjax. Not VerSe, and no patient's data.",
        "GeneratorVersion": VERSION,
        **facts,
    }
    if path.is_file():
        _check_same(folder, read_json(path), about)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(entry.name != DESCRIPTION for entry in folder.iterdir()):
            raise DataError(f"{folder} holds something else: give a new folder for the cohort")
        _write_text(path, json.dumps(about, indent=1) + "\n")
    except OSError as error:
        raise DataError(
            f"{folder}: the cohort cannot be written here ({error.strerror})"
        ) from error


def has_subject(folder: Path, number: int) -> bool:
    """Whether the cohort already holds the whole subject."""
    return (folder / "rawdata" / f"sub-{subject_id(number)}").is_dir()


def save_subject(folder: Path, subject: SyntheticSubject) -> None:
    """Write one subject; whole or not at all. DataError when the disk does not take it."""
    name = f"sub-{subject.id}"
    partial = folder.parent / f".{folder.name}.{name}.partial"  # of a killed run: made anew
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
        for source in (derived, raw):  # rawdata last: it says that the subject is whole
            target = folder / source.name / name
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            source.rename(target)
    except OSError as error:
        raise DataError(
            f"{folder}: {name} could not be written ({error.strerror}): nothing of it is left; "
            "make room and start again, finished subjects are kept"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def subject_facts(folder: Path) -> dict[str, dict[str, Any]]:
    """What the cohort says of each whole subject, by id, in order."""
    names = sorted(path.name for path in (folder / "rawdata").glob("sub-synth*"))
    paths = {name: folder / "derivatives" / name / f"{name}_synthverse.json" for name in names}
    return {name.removeprefix("sub-"): read_json(path) for name, path in paths.items()}


def save_participants(folder: Path) -> None:
    """Write participants.tsv anew from the subjects that are there."""
    rows = ["participant_id\tsex\tage\tfamily\tparents"]
    for name, facts in subject_facts(folder).items():
        parents = real_parents(facts)
        age, sex = facts["age_years"], facts["sex"]
        rows.append(f"sub-{name}\t{sex}\t{age}\t{facts['family']}\t{','.join(parents)}")
    _write_text(folder / "participants.tsv", "\n".join(rows) + "\n")


def real_parents(facts: dict[str, Any]) -> list[str]:
    """The real subjects whose meshes stand behind a subject; none for the parametric family."""
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
        raise DataError(f"{folder}: its {DESCRIPTION} is of another dataset: give a new folder")
    wanted = json.loads(json.dumps(wanted))
    other = [k for k in wanted if k != "Commit" and found.get(k) != wanted[k]]
    if other:
        was = ", ".join(f"{k}={found.get(k)}" for k in other)
        raise DataError(
            f"{folder}: this cohort was begun with other settings ({was}): give the same ones to "
            "go on with it, or a new folder"
        )


def _write_text(path: Path, text: str) -> None:
    publish_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))
