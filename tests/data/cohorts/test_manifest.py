import dataclasses
import json

import numpy as np
import pytest

from dartjax import data
from tests.data import phantoms

LABELS = np.where(phantoms.ring(), 20, 0).astype(np.uint8)


def with_hashes(subject):
    scan = data.read_scan(subject)
    return dataclasses.replace(subject, ct_hash=scan.ct_hash, mask_hash=scan.mask_hash)


def manifest_of(folder, name="cohort"):
    subjects = tuple(map(with_hashes, data.find_subjects(folder)))
    return data.Manifest(name, subjects, {s.id: ("L1",) for s in subjects})


def made(subject_id, *, ct=None, mask=None, parents=()):
    """A manifest of one scan that exists in memory alone."""
    paths = {"ct_path": phantoms.Path("a"), "mask_path": phantoms.Path("b")}
    subject = data.Subject(subject_id, **paths, ct_hash=ct, mask_hash=mask, parents=parents)
    return data.Manifest("made", (subject,), {})


@pytest.fixture
def cohort(tmp_path):
    folder = tmp_path / "cohort"
    for index, name in enumerate(("verse004", "verse400_split-verse090")):
        labels = LABELS.copy()
        labels[20, 5 + index, 20] = 20  # so that no two scans are alike
        phantoms.save_subject(folder / "test", name, labels)
    return folder


def test_round_trip_through_a_file(cohort, tmp_path):
    manifest = manifest_of(cohort)
    path = tmp_path / "run" / "manifest.json"
    path.parent.mkdir()
    data.save_manifest(path, manifest)
    loaded = data.load_manifest(path)
    assert (loaded.name, loaded.levels) == (manifest.name, manifest.levels)
    assert loaded.ids_hash == manifest.ids_hash == data.ids_hash(manifest.levels)
    for subject, original in zip(loaded.subjects, manifest.subjects, strict=True):
        same = {"ct_path": original.ct_path, "mask_path": original.mask_path}
        same |= {"centroids_path": original.centroids_path}
        assert dataclasses.replace(subject, **same) == original
        assert subject.ct_path.samefile(original.ct_path)
    entry = json.loads(path.read_text())["subjects"][1]
    assert (entry["id"], entry["patient"]) == ("verse400_split-verse090", "verse400")
    assert entry["ct"].startswith("../cohort/test/rawdata/")
    assert [p.name for p in path.parent.iterdir()] == ["manifest.json"]
    assert data.load_case(data.find_subjects(path)[0]).levels == ("L1",)


def test_folder_that_is_renamed_afterwards(cohort, tmp_path):
    """Relative paths hold where the file will lie, not where it is written."""
    partial, final = tmp_path / "deep" / ".partial", tmp_path / "final"
    partial.mkdir(parents=True)
    data.save_manifest(partial / "m.json", manifest_of(cohort), final_folder=final)
    partial.rename(final)
    assert len(data.load_manifest(final / "m.json").subjects) == 2


@pytest.mark.parametrize("which", ["ct_path", "mask_path"])
def test_a_file_that_has_changed(cohort, tmp_path, which):
    data.save_manifest(tmp_path / "m.json", manifest_of(cohort))
    subject = data.find_subjects(tmp_path / "m.json")[0]
    labels = LABELS.copy()
    labels[20, 7, 20] = 20
    changed = phantoms.hounsfield(labels > 0) if which == "ct_path" else labels
    phantoms.save(getattr(subject, which), changed)
    with pytest.raises(data.DataError, match=r"changed after the manifest was written"):
        data.load_case(subject)


def test_recompressed_and_renamed_files_keep_their_hash(cohort, tmp_path):
    first = manifest_of(cohort).subjects[0]
    other = tmp_path / "other"
    for path, ending in ((first.ct_path, ""), (first.mask_path, "_seg")):
        import nibabel as nib

        image = nib.load(path)
        other.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), other / f"x{ending}.nii")
    (found,) = manifest_of(other).subjects
    assert (found.ct_hash, found.mask_hash) == (first.ct_hash, first.mask_hash)


def test_nothing_is_left_when_the_disk_is_full(cohort, tmp_path, monkeypatch):
    manifest = manifest_of(cohort)
    path = tmp_path / "run" / "m.json"
    path.parent.mkdir()
    path.write_text("earlier")

    def full(self, *_, **__):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_text", full)
    with pytest.raises(data.DataError, match=r"m\.json: cannot be written \(No space left"):
        data.save_manifest(path, manifest)
    assert [p.name for p in path.parent.iterdir()] == ["m.json"]
    assert path.read_text() == "earlier"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a cohort manifest"),
        ({"version": 2}, "version 2"),
        ({"subjects": []}, "at least one scan"),
        ({"subjects": [{}]}, "subject 1: missing id"),
        ({"surprise": 1}, "unknown key 'surprise'"),
    ],
)
def test_files_that_are_no_manifest(cohort, tmp_path, change, message):
    path = tmp_path / "m.json"
    data.save_manifest(path, manifest_of(cohort))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(data.DataError, match=message):
        data.find_subjects(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "later"}, "split 'later' is not one of"),
        ({"dataset_kind": "verse"}, "dataset_kind 'verse'"),
        ({"ct": 3}, "ct must be a text"),
        ({"mask": "gone.nii.gz"}, "1 of 4 files are missing"),
        ({"id": "verse004"}, "verse004 occurs twice"),
    ],
)
def test_wrong_entries(cohort, tmp_path, change, message):
    path = tmp_path / "m.json"
    data.save_manifest(path, manifest_of(cohort))
    content = json.loads(path.read_text())
    content["subjects"][1] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(data.DataError, match=message):
        data.find_subjects(path)


def test_subjects_need_hashes(cohort, tmp_path):
    bare = data.Manifest("bare", tuple(data.find_subjects(cohort)), {})
    with pytest.raises(data.DataError, match="verse004 has no content hash"):
        data.save_manifest(tmp_path / "m.json", bare)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (made("verse004"), made("verse004"), "same id and same person"),
        (made("verse400_split-verse090"), made("verse400_split-verse155"), "same person"),
        (made("verse400_split-verse090"), made("verse090"), "same person"),
        (made("verse506"), made("verse506_CT-iso"), "same person"),
        (made("sub-A"), made("a"), "same person"),
        (made("a", ct="1"), made("b", ct="1"), "same CT"),
        (made("a", mask="1"), made("b", mask="1"), "same mask"),
        (made("synth1", parents=("tptct",)), made("tptct"), "one was made from the other"),
        (made("tptct"), made("synth1", parents=("tptct",)), "one was made from the other"),
        (made("s1", parents=("p",)), made("s2", parents=("q", "P")), "made from the same person"),
    ],
)
def test_leaks(first, second, reason):
    (leak,) = data.leaks(first, second)
    assert leak == data.Leak(first.subjects[0].id, second.subjects[0].id, reason)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (made("liver_1", ct="1", mask="2"), made("liver_2", ct="2", mask="1")),
        (made("verse004"), made("verse040")),
        (made("s1", parents=("p",)), made("s2", parents=("q",))),
    ],
)
def test_different_people_do_not_leak(first, second):
    first = dataclasses.replace(first)
    assert data.leaks(first, second) == []


def test_scans_without_hashes_are_not_taken_for_the_same():
    bare = [
        dataclasses.replace(made(name).subjects[0], ct_hash=None, mask_hash=None) for name in "ab"
    ]
    assert data.leaks(*(data.Manifest("m", (subject,), {}) for subject in bare)) == []


def test_leaks_into_shape_models():
    card = {"name": "all", "subjects_included": ["lidc0001", "verse400"], "ct_hashes": ["beef"]}
    for manifest, word in (
        (made("sub-LIDC0001"), "with it"),
        (made("verse400_split-verse090"), "with it"),
        (made("x", ct="beef"), "with it"),
        (made("synth1", parents=("lidc0001",)), "with its parent"),
    ):
        (leak,) = data.leaks_into_model(manifest, card)
        assert leak.second == "all" and leak.reason.endswith(word)
    assert data.leaks_into_model(made("verse090", ct="feed"), card) == []
