"""Layouts, splits and descriptions; `test_verse.py` has VerSe's own names."""

import dataclasses
import os

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from dartjax import data
from tests.data import phantoms
from tests.data.formats.test_centroids import DIRECTIONS
from tests.data.formats.test_nifti import oblique_affine

SMALL = np.zeros((6, 6, 6), np.uint8)
SMALL[2:4, 2:4, 2:4] = 20


def save_pair(ct_path, mask_path, labels=SMALL, affine=phantoms.AFFINE):
    phantoms.save(ct_path, phantoms.hounsfield(labels > 0), affine)
    phantoms.save(mask_path, labels, affine)


def by_id(folder):
    return {subject.id: subject for subject in data.find_subjects(folder)}


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("training", "training"),
        ("dataset-verse19validation", "validation"),
        ("03_test", "test"),
        ("dataset-01training", "training"),
        ("verse/val", "validation"),
        ("latest", ""),
    ],
)
def test_split_by_folder(tmp_path, folder, split):
    phantoms.save_subject(tmp_path / "all" / folder, "verse004", SMALL)
    (subject,) = data.find_subjects(tmp_path / "all")
    assert (subject.split, subject.layout) == (split, "bids")
    (subject,) = data.find_subjects(tmp_path / "all" / folder)
    assert subject.split == split  # of the folder named, too
    assert data.load_case(subject).split == split


def test_scans_of_one_person(tmp_path):
    for name in ("verse400_split-verse090", "verse400_split-verse155_dir-ax", "verse500_dir-sag"):
        phantoms.save_subject(tmp_path, name, SMALL)
    found = by_id(tmp_path)
    assert [s.patient for s in found.values()] == ["verse400", "verse400", "verse500"]
    assert all(s.centroids_path.name.startswith(f"sub-{s.id}_seg-") for s in found.values())


@pytest.mark.parametrize(
    ("stem", "patient", "centroids"),
    [
        ("verse014", "verse014", "verse014_ctd.json"),
        ("GL017_CT_ax", "GL017", "GL017_CT_ax_iso-ctd.json"),
        ("GL124_CT_ax", "GL124", "GL124_CT_ax-iso-ctd.json"),
        ("verse400_verse090_CT-iso", "verse400", "verse400_verse090_CT-iso_iso-ctd.json"),
    ],
)
def test_layout_of_the_challenges(tmp_path, stem, patient, centroids):
    home = tmp_path / "01_training" / patient
    save_pair(home / f"{stem}.nii.gz", home / f"{stem}_seg.nii.gz")
    (home / centroids).write_text("[]")
    (home / f"{stem}_other.json").write_text("[]")
    (subject,) = data.find_subjects(tmp_path)
    assert (subject.id, subject.patient, subject.layout) == (stem, patient, "challenge")
    assert subject.centroids_path == home / centroids
    assert subject.split == "training"
    assert subject.dataset == tmp_path.name


def test_centroids_on_the_grid_of_the_mask_come_first(tmp_path):
    save_pair(tmp_path / "verse014.nii.gz", tmp_path / "verse014_seg.nii.gz")
    for name in ("verse014_iso-ctd.json", "verse014_seg-subreg_ctd.json"):
        (tmp_path / name).write_text("[]")
    (subject,) = data.find_subjects(tmp_path)
    assert subject.centroids_path.name == "verse014_seg-subreg_ctd.json"


def test_plain_pairs_are_a_person_each(tmp_path):
    for stem in ("liver_1", "liver_2"):
        save_pair(tmp_path / f"{stem}.nii.gz", tmp_path / f"{stem}_seg.nii.gz")
    found = by_id(tmp_path)
    assert {s.patient for s in found.values()} == {"liver_1", "liver_2"}
    assert {s.layout for s in found.values()} == {"pairs"}


def test_participants_give_split_and_parents(tmp_path):
    phantoms.save_subject(tmp_path, "synth0001", SMALL)
    phantoms.save_subject(tmp_path, "synth0002", SMALL)
    (tmp_path / "dataset_description.json").write_text('{"Name": "made", "Synthetic": true}')
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tsplit\tparents\nsub-synth0001\ttest\tctacardio,remus_vhm\n"
        "sub-synth0002\tn/a\tn/a\n"
    )
    one, two = data.find_subjects(tmp_path)
    assert (one.split, one.parents, one.dataset) == ("test", ("ctacardio", "remus_vhm"), "made")
    assert (two.split, two.parents) == ("", ())
    assert data.load_case(one).parents == one.parents
    (tmp_path / "participants.tsv").write_text("participant_id\tsplit\nsynth0001\tlater\n")
    with pytest.raises(data.DataError, match="'later' of synth0001 is not one of training"):
        data.find_subjects(tmp_path)


def golden(tmp_path, image, labels):
    """A cohort of one scan: bright metal on the patient's left in front, L1 on the right."""
    ct = np.where(np.asarray(labels.dataobj) > 0, 400, 40).astype(np.int16)
    ct[0, 0] = -1000
    ct[np.asarray(image.dataobj) > 0] = 3000
    nib.save(nib.Nifti1Image(ct, image.affine), tmp_path / "a.nii.gz")
    nib.save(labels, tmp_path / "a_seg.nii.gz")
    (subject,) = data.find_subjects(tmp_path)
    return data.load_case(subject)


@pytest.mark.parametrize("axes", DIRECTIONS)
def test_left_is_left_in_every_stored_orientation(tmp_path, axes):
    """Flipped, permuted, oblique and anisotropic grids place the same anatomy in the world."""
    metal, labels = np.zeros((2, 34, 30, 12), np.uint8)
    metal[5:7, 26:28, 4:6] = 1
    labels[18:29, 8:16, 3:8] = 20
    affine = oblique_affine()
    turn = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(axes)
    )
    stored = [nib.Nifti1Image(array, affine).as_reoriented(turn) for array in (metal, labels)]
    case = golden(tmp_path, *stored)
    world_from_voxel = np.asarray(case.ct.world_from_voxel, np.float64)
    assert "".join(nib.aff2axcodes(world_from_voxel)) == axes
    brightest = np.argwhere(np.asarray(case.ct.values) > 0.05).mean(0)
    found = world_from_voxel[:3, :3] @ brightest + world_from_voxel[:3, 3]
    np.testing.assert_allclose(found, (affine @ [5.5, 26.5, 4.5, 1])[:3], atol=1e-3)
    body = data.mask_centroids(case.labels, world_from_voxel)["L1"]
    np.testing.assert_allclose(body, (affine @ [23, 11.5, 5, 1])[:3], atol=1e-3)
    assert body[0] > found[0] and body[1] < found[1]  # right of, and behind, the metal
    assert case.rejected == {"L1": "implausible volume of 0.7 cm3"}  # it is small


def test_ids_that_occur_twice(tmp_path):
    for folder in ("a", "b"):
        save_pair(tmp_path / folder / "x.nii.gz", tmp_path / folder / "x_seg.nii.gz")
    with pytest.raises(data.DataError, match="subject x occurs twice"):
        data.find_subjects(tmp_path)


def test_folder_that_cannot_be_read(tmp_path, monkeypatch):
    phantoms.save_subject(tmp_path, "verse004", SMALL)

    def raise_error(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", raise_error)
    with pytest.raises(data.DataError, match=r"cannot be read \(Permission denied\)"):
        data.find_subjects(tmp_path)


def test_neither_folder_nor_manifest(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for path in (tmp_path / "absent", tmp_path / "notes.txt"):
        with pytest.raises(data.DataError, match="no such folder or manifest"):
            data.find_subjects(path)


@pytest.mark.parametrize(
    "table",
    [
        "\ufeffparticipant_id\tsplit\nsub-a\ttest\n",
        "participant_id,split\nsub-a,test\n",
        "Participant_ID;Split\nsub-a; Test\n",
    ],
)
def test_tables_of_other_programs(tmp_path, table):
    save_pair(tmp_path / "sub-a_ct.nii", tmp_path / "sub-a_seg-vert_msk.nii")
    for path in list(tmp_path.iterdir()):
        (tmp_path / f"._{path.name}").write_bytes(b"\0\5\26\7")  # of macOS
    (tmp_path / "participants.tsv").write_text(table, encoding="utf-8")
    assert {name: one.split for name, one in by_id(tmp_path).items()} == {"a": "test"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name\tsplit\nsub-a\ttest\n", "no column participant_id"),
        ("participant_id\tsplit\nsub-a\ttest\na\ttraining\n", "a is listed twice"),
    ],
)
def test_tables_that_are_refused(tmp_path, table, message):
    save_pair(tmp_path / "sub-a_ct.nii", tmp_path / "sub-a_seg-vert_msk.nii")
    (tmp_path / "participants.tsv").write_text(table)
    with pytest.raises(data.DataError, match=message):
        data.find_subjects(tmp_path)


@pytest.mark.parametrize(("value", "kind"), [('"false"', "real_ct_drr"), ('"True"', "synthetic")])
def test_words_for_true_and_false(tmp_path, value, kind):
    save_pair(tmp_path / "sub-a_ct.nii", tmp_path / "sub-a_seg-vert_msk.nii")
    text = f'\ufeff{{"Synthetic": {value}}}'
    (tmp_path / "dataset_description.json").write_text(text, encoding="utf-8")
    assert by_id(tmp_path)["a"].dataset_kind == kind


def test_an_empty_table_and_a_column_twice(tmp_path):
    save_pair(tmp_path / "sub-a_ct.nii", tmp_path / "sub-a_seg-vert_msk.nii")
    table = tmp_path / "participants.tsv"
    for text, message in (("", "no column"), ("participant_id\tsplit\tSplit\n", "the same name")):
        table.write_text(text)
        with pytest.raises(data.DataError, match=message):
            data.find_subjects(tmp_path)


def test_two_files_of_one_scan(tmp_path):
    save_pair(tmp_path / "sub-a_ct.nii", tmp_path / "sub-a_seg-vert_msk.nii")
    phantoms.save(tmp_path / "sub-a_ct.nii.gz", phantoms.hounsfield(SMALL > 0))
    with pytest.raises(data.DataError, match=r"sub-a_ct\.nii\.gz: a second file for the scan"):
        data.find_subjects(tmp_path)
    parallel = tmp_path / "parallel"
    save_pair(parallel / "volumes" / "x.nii", parallel / "labels" / "x_seg.nii")
    phantoms.save(parallel / "labels" / "x.nii.gz", SMALL)
    with pytest.raises(data.DataError, match="a second file for the scan"):
        data.find_subjects(parallel)


def test_what_a_killed_run_left_is_no_data(tmp_path):
    save_pair(tmp_path / "sub-a_ct.nii", tmp_path / "sub-a_seg-vert_msk.nii")
    left = tmp_path / ".sub-b.17.partial"
    save_pair(left / "sub-b_ct.nii", left / "sub-b_seg-vert_msk.nii")
    assert list(by_id(tmp_path)) == ["a"]
    assert [source.subject for source in data.find_shapes(tmp_path)] == ["a"]
    with pytest.raises(data.DataError, match="found 0 CT images"):
        (tmp_path / "sub-a_ct.nii").rename(left / "sub-a_ct.nii")
        (tmp_path / "sub-a_seg-vert_msk.nii").unlink()
        data.find_subjects(tmp_path)


def test_numbering_of_a_cohort(tmp_path):
    """L1 is 31 in TotalSegmentator 2."""
    save_pair(tmp_path / "a.nii", tmp_path / "a_seg.nii", np.where(SMALL, 31, 0).astype(np.uint8))
    (subject,) = data.find_subjects(tmp_path, labels="totalsegmentator")
    scan = data.read_scan(subject)
    np.testing.assert_array_equal(scan.labels, SMALL)
    assert "L1" in data.load_case(subject).rejected  # too small
    assert (
        "L1" in data.load_case(data.find_subjects(tmp_path)[0], labels="totalsegmentator").rejected
    )
    hashed = dataclasses.replace(subject, ct_hash=scan.ct_hash, mask_hash=scan.mask_hash)
    data.save_manifest(tmp_path / "m.json", data.Manifest("m", (hashed,), {}))
    (again,) = data.find_subjects(tmp_path / "m.json")
    assert again.labels == "totalsegmentator"
    assert data.read_scan(again).mask_hash == scan.mask_hash
