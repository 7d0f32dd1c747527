import shutil

import numpy as np
import pytest

from dartjax import data
from tests.data import phantoms


def ids(folder):
    return [subject.id for subject in data.find_subjects(folder)]


@pytest.fixture
def labels():
    """A whole L1 in the middle, and an L2 cut by the border."""
    array = np.where(phantoms.ring(), 20, 0).astype(np.uint8)
    array[phantoms.ring(center=(20, 20, 1), radii=(9.0, 4.0))] = 21
    return array


@pytest.mark.parametrize("root", ["", "dataset-verse19test", "dataset-a/training", "validation"])
def test_bids_layout_at_any_depth(tmp_path, labels, root):
    phantoms.save_subject(tmp_path / root, "verse004", labels)
    phantoms.save_subject(tmp_path / root, "verse400_split-verse253", labels)
    subjects = data.find_subjects(tmp_path)
    assert [s.id for s in subjects] == ["verse004", "verse400_split-verse253"]
    assert subjects[0].centroids_path is not None
    assert subjects[0].dataset_kind == "real_ct_drr"
    assert data.patient_of(subjects[1].id) == "verse400"


def test_folder_of_one_subject(tmp_path, labels):
    phantoms.save_subject(tmp_path / "full", "verse004", labels)
    one = tmp_path / "one"
    one.mkdir()
    for file in (tmp_path / "full").rglob("*.nii.gz"):
        shutil.copy(file, one)
    (subject,) = data.find_subjects(one)
    assert (subject.id, subject.centroids_path) == ("verse004", None)
    assert data.load_case(subject).levels == ("L1",)


def test_old_flat_layout(tmp_path, labels):
    phantoms.save(tmp_path / "verse012.nii.gz", phantoms.hounsfield(labels > 0))
    phantoms.save(tmp_path / "verse012_seg.nii.gz", labels)
    folder = tmp_path / "GL003_CT_ax"
    phantoms.save(folder / "GL003_CT_ax.nii.gz", phantoms.hounsfield(labels > 0))
    phantoms.save(folder / "GL003_CT_ax_seg.nii.gz", labels)
    assert ids(tmp_path) == ["GL003_CT_ax", "verse012"]


def test_synthetic_is_declared_by_name_or_description(tmp_path, labels):
    phantoms.save_subject(tmp_path / "a", "synth0001", labels)
    phantoms.save_subject(tmp_path / "b", "made1", labels)
    (tmp_path / "b" / "dataset_description.json").write_text('{"Synthetic": true, "Name": "b1"}')
    made, synth = data.find_subjects(tmp_path)
    assert (made.dataset, made.dataset_kind) == ("b1", "synthetic")
    assert (synth.dataset, synth.dataset_kind) == ("a", "synthetic")


def test_case_holds_complete_levels_and_reasons(tmp_path, labels):
    phantoms.save_subject(tmp_path, "verse004", labels)
    case = data.load_case(data.find_subjects(tmp_path)[0])
    assert case.levels == ("L1",)
    assert "border" in case.rejected["L2"]
    assert case.dataset_kind == "real_ct_drr"
    assert case.label_of("L1") == 20
    np.testing.assert_array_equal(case.labels, labels)
    with pytest.raises(data.DataError, match="L2 cannot be used: cut by the border"):
        case.label_of("L2")
    with pytest.raises(data.DataError, match="T9 cannot be used: its label is not in the mask"):
        case.label_of("T9")


def test_reasons_against_a_level():
    labels = np.where(phantoms.ring(), 19, 0).astype(np.uint8)
    labels[labels == 19] = 20
    levels, _ = data.complete_levels(labels, phantoms.AFFINE)
    assert levels == ("L1",)
    broken = labels.copy()
    broken[:, 18:23] = 0
    _, rejected = data.complete_levels(broken, phantoms.AFFINE)
    assert "in pieces" in rejected["L1"]
    _, rejected = data.complete_levels(labels, np.diag([0.5, 0.5, 0.5, 1.0]))
    assert "implausible volume" in rejected["L1"]
    _, rejected = data.complete_levels(np.where(labels > 0, 5, 0).astype(np.uint8), phantoms.AFFINE)
    assert "cervical" in rejected["C5"]


def test_exchanged_neighbours_are_rejected():
    labels = np.zeros((20, 20, 146), np.uint8)
    for slot, label in enumerate((22, 20, 21, 19, 18)):  # L1 and L2 exchanged
        labels[4:16, 4:16, 6 + 28 * slot : 30 + 28 * slot] = label
    levels, rejected = data.complete_levels(labels, np.diag([1.5, 1.5, 1.0, 1.0]))
    assert levels == ("T11", "T12", "L3")
    assert rejected == dict.fromkeys(("L1", "L2"), "out of order: L2 lies above L1")


def test_border_margin_is_two_millimetres_and_one_voxel():
    def levels_with_gap(gap, spacing):
        labels = np.zeros((30, 30, 30), np.uint8)
        labels[5:25, 5:25, gap : gap + 20] = 20
        return data.complete_levels(labels, np.diag([1.0, 1.0, spacing, 1.0]))[0]

    assert levels_with_gap(1, 2.5) == ("L1",)
    assert levels_with_gap(0, 2.5) == ()
    assert levels_with_gap(2, 1.0) == ("L1",)
    assert levels_with_gap(1, 1.0) == ()


def test_thirteenth_thoracic_stands_between_t12_and_l1():
    labels = np.zeros((20, 20, 90), np.uint8)
    for slot, label in enumerate((20, 28, 19)):
        labels[4:16, 4:16, 6 + 28 * slot : 30 + 28 * slot] = label
    levels, _ = data.complete_levels(labels, np.diag([1.5, 1.5, 1.0, 1.0]))
    assert levels == ("T12", "T13", "L1")


def test_mask_without_vertebrae(tmp_path, labels):
    phantoms.save_subject(tmp_path, "verse004", labels)
    subject = data.find_subjects(tmp_path)[0]
    phantoms.save(subject.mask_path, np.zeros_like(labels))
    with pytest.raises(data.DataError, match="no vertebra label"):
        data.load_case(subject)


def test_mask_on_another_grid(tmp_path, labels):
    phantoms.save_subject(tmp_path, "verse004", labels)
    subject = data.find_subjects(tmp_path)[0]
    phantoms.save(subject.mask_path, labels[:-1])
    with pytest.raises(data.DataError, match=r"has \(39, 40, 40\) voxels"):
        data.load_case(subject)
    shifted = phantoms.AFFINE.copy()
    shifted[0, 3] = 4.0
    phantoms.save(subject.mask_path, labels, shifted)
    with pytest.raises(data.DataError, match=r"4\.0 mm from the CT"):
        data.load_case(subject)


def test_ct_without_mask_is_left_out_with_a_warning(tmp_path, labels):
    phantoms.save_subject(tmp_path, "verse004", labels)
    phantoms.save_subject(tmp_path, "verse005", labels)
    next(tmp_path.rglob("sub-verse005_seg-vert_msk.nii.gz")).unlink()
    with pytest.warns(UserWarning, match="sub-verse005_ct"):
        assert ids(tmp_path) == ["verse004"]


def test_nothing_found_names_the_layout(tmp_path, labels):
    phantoms.save_subject(tmp_path, "verse004", labels)
    next(tmp_path.rglob("*_msk.nii.gz")).unlink()
    with pytest.raises(data.DataError, match=r"1 CT images and 0 .*expected rawdata/sub-X"):
        data.find_subjects(tmp_path)
    with pytest.raises(data.DataError, match="no such folder"):
        data.find_subjects(tmp_path / "absent")


def test_same_subject_in_two_datasets(tmp_path, labels):
    for root in ("dataset-verse19training", "dataset-verse20training"):
        phantoms.save_subject(tmp_path / root, "verse004", labels)
    with pytest.raises(data.DataError, match="verse004 occurs twice"):
        data.find_subjects(tmp_path)


def test_ct_hash_follows_the_content_alone(tmp_path, labels):
    phantoms.save_subject(tmp_path / "a", "one", labels)
    phantoms.save_subject(tmp_path / "b", "two", labels)
    other = labels.copy()
    other[20, 5:8, 20] = 20
    phantoms.save_subject(tmp_path / "c", "three", other)
    one, three, two = (data.load_case(s).ct_hash for s in data.find_subjects(tmp_path))
    assert one == two != three


def test_ids_hash_ignores_order_and_repeats():
    assert data.ids_hash(["a", "b"]) == data.ids_hash(["b", "a", "b"]) != data.ids_hash(["ab"])
