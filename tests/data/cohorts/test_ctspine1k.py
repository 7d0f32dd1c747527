import numpy as np
import pytest

from dartjax import data
from tests.data import phantoms
from tests.data.cohorts.test_cohort import SMALL, save_pair

COLON = "1.3.6.1.4.1.9328.50.4.0001"
COVID = "volume-covid19-A-0319"


def save_cohort(root, images="volumes", masks="labels"):
    for source, stem, ending in (
        ("colon", COLON, ""),
        ("MSD-T10", "liver_106", ""),
        ("MSD-T10", "liver_83", ""),
        ("COVID-19", COVID, "_ct"),
    ):
        save_pair(
            root / images / source / f"{stem}{ending}.nii.gz",
            root / masks / source / f"{stem}{ending}_seg.nii.gz",
        )


@pytest.mark.parametrize("folders", [("volumes", "labels"), ("data", "label")])
def test_parallel_folders(tmp_path, folders):
    save_cohort(tmp_path / "rawdata", *folders)
    subjects = data.find_subjects(tmp_path)
    assert [s.id for s in subjects] == [COLON, "liver_106", "liver_83", COVID]
    assert {s.layout for s in subjects} == {"ctspine1k"}
    assert [s.patient for s in subjects] == [s.id for s in subjects]
    assert subjects[0].dataset == "CTSpine1K colon"
    assert [s.split for s in subjects] == [""] * 4
    assert data.load_case(subjects[1]).subject == "liver_106"


def test_published_splits(tmp_path):
    save_cohort(tmp_path)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "data_split.txt").write_text(
        f"trainset:\n{COLON}.nii.gz\n\ntest_public:\nliver_106.nii.gz\n\n"
        f"test_private:\nliver_83.nii.gz\n{COVID}_ct.nii.gz{COVID}_ct.nii.gz\n"
    )
    subjects = data.find_subjects(tmp_path)
    assert [s.split for s in subjects] == ["training", "validation", "test", "test"]
    (tmp_path / "metadata" / "data_split.txt").write_text("no headings\n")
    with pytest.raises(data.DataError, match="not a split file"):
        data.find_subjects(tmp_path)


def test_sixth_lumbar_vertebra_is_25(tmp_path):
    labels = np.where(phantoms.ring(), 25, 0).astype(np.uint8)
    save_pair(tmp_path / "volumes" / "a.nii.gz", tmp_path / "labels" / "a_seg.nii.gz", labels)
    (subject,) = data.find_subjects(tmp_path)
    assert data.load_case(subject).levels == ("L6",)
    assert subject.layout == "pairs"  # parallel folders of no source of CTSpine1K


def test_folder_named_data_without_a_folder_of_masks(tmp_path):
    save_pair(tmp_path / "data" / "x.nii.gz", tmp_path / "data" / "x_seg.nii.gz")
    assert [s.layout for s in data.find_subjects(tmp_path)] == ["pairs"]


def test_other_names_of_parallel_folders(tmp_path):
    home = tmp_path / "Task03_Liver"
    save_pair(home / "imagesTr" / "p_01_0000.nii.gz", home / "labelsTr" / "p_01.nii.gz")
    (subject,) = data.find_subjects(tmp_path)
    assert (subject.id, subject.layout, subject.dataset) == ("p_01", "pairs", tmp_path.name)


def test_a_mask_without_its_image(tmp_path):
    phantoms.save(tmp_path / "labels" / "colon" / "a_seg.nii.gz", SMALL)
    with pytest.raises(data.DataError, match="0 CT images and 1 vertebra masks"):
        data.find_subjects(tmp_path)
