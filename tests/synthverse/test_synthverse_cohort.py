"""SynthVerSe on disk: VerSe's layout, atomic and resumable writing, parents, bad input."""

import dataclasses
import json
import typing

import nibabel as nib
import numpy as np
import pytest
import trimesh
from skimage import measure

from dartjax import data, synthverse
from dartjax.synthverse import _sizes, _subject, _warped, _write, vertebra
from experiments.make_synthverse.settings import Settings

OPTIONS = synthverse.Options(spacing_mm=3.0, view="lumbar", thick_slices=False)
FACTS = {"Seed": 3, "Commit": "abc", "Family": "parametric"}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohorts") / "cohort"
    synthverse.open_cohort(folder, FACTS)
    for number in (0, 1):
        subject = synthverse.make_subject(3, number, "parametric", OPTIONS)
        synthverse.save_subject(folder, subject)
    synthverse.save_participants(folder)
    return folder


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """Meshes of L1 to L3 of two synthetic people as PLY."""
    folder = tmp_path_factory.mktemp("meshes")
    ends = ((-60.0, 60.0), (-80.0, 32.0), (-50.0, 44.0))
    x, y, z = (np.arange(a, b, 1.5, dtype=np.float32) for a, b in ends)
    for person, seed in (("anna", 1), ("lidc0001", 2)):
        forms = _sizes.draw_person(np.random.default_rng(seed)).forms
        for level in ("L1", "L2", "L3"):
            value = vertebra(forms[level], x[:, None, None], y[None, :, None], z[None, None, :])
            vertices, faces, _, _ = measure.marching_cubes(
                value, 0.0, spacing=(1.5, 1.5, 1.5), gradient_direction="descent"
            )
            path = folder / person / f"{level}.ply"
            path.parent.mkdir(exist_ok=True)
            trimesh.Trimesh(vertices, faces, process=False).export(path)
    return folder


def test_reads_back_as_a_synthetic_cohort_with_whole_levels(cohort):
    subjects = data.find_subjects(cohort)
    assert [s.id for s in subjects] == ["synth0000", "synth0001"]
    for subject in subjects:
        assert (subject.dataset, subject.dataset_kind) == ("SynthVerSe", "synthetic")
        case = data.load_case(subject)
        assert {"L1", "L2", "L3", "L4", "L5"} <= set(case.levels)
        assert any("border" in reason for reason in case.rejected.values())


def test_centroids_lie_in_the_bodies(cohort):
    for subject in data.find_subjects(cohort):
        case = data.load_case(subject)
        facts = synthverse.subject_facts(cohort)[subject.id]
        voxel_from_world = np.linalg.inv(np.asarray(case.ct.world_from_voxel, float))
        for level, point in data.load_centroids(subject).items():
            pose = np.array(facts["vertebrae"][level]["world_from_vertebra"])
            np.testing.assert_allclose(point, pose[:3, 3], atol=0.05)
            voxel = np.rint(voxel_from_world[:3, :3] @ point + voxel_from_world[:3, 3])
            assert case.labels[tuple(voxel.astype(int))] == data.label_of(level)


def test_the_description_marks_the_cohort_as_synthetic(cohort):
    about = json.loads((cohort / "dataset_description.json").read_text())
    assert about["Synthetic"] is True
    assert about["Seed"] == 3
    assert "Not VerSe" in about["Note"]
    facts = synthverse.subject_facts(cohort)["synth0000"]
    assert facts["family"] == "parametric"
    assert facts["vertebrae"]["L1"]["drawn_mm"]["body_height"] > 20


def test_the_same_seed_gives_the_same_bytes(cohort, tmp_path):
    synthverse.open_cohort(tmp_path / "again", FACTS)
    subject = synthverse.make_subject(3, 1, "parametric", OPTIONS)
    synthverse.save_subject(tmp_path / "again", subject)
    for path in (tmp_path / "again").rglob("sub-synth0001_*"):
        twin = cohort / path.relative_to(tmp_path / "again")
        assert path.read_bytes() == twin.read_bytes(), path.name


def test_orientations_differ_and_keep_the_patient():
    hu = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    labels = (hu % 7).astype(np.uint8)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    codes = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        moved, marks, pose, turn = _subject._reorient(rng, hu, labels, affine, OPTIONS)
        codes.add("".join(nib.aff2axcodes(pose)) + ("" if np.allclose(turn, np.eye(4)) else "*"))
        voxel = np.argwhere(moved == 77)[0]  # the voxel (2, 2, 5) of the patient's own grid
        world = turn @ affine @ [2, 2, 5, 1]
        np.testing.assert_allclose(pose @ [*voxel, 1], world, atol=1e-9)
        assert marks[tuple(voxel)] == labels[2, 2, 5]
    assert codes == {"RAS", "PIR", "LPS", "RAS*"}


def test_an_interrupted_write_leaves_no_partial_subject(tmp_path, monkeypatch):
    folder = tmp_path / "cohort"
    synthverse.open_cohort(folder, FACTS)
    blank = np.zeros((5, 5, 5), np.int16)
    labels = blank.astype(np.uint8)
    subject = synthverse.SyntheticSubject("synth0000", blank, labels, np.eye(4), {}, {})

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_write, "save_centroids", full_disk)
        with pytest.raises(data.DataError, match="No space left"):
            synthverse.save_subject(folder, subject)
    assert not synthverse.has_subject(folder, 0)
    assert not list(tmp_path.rglob("*.nii.gz"))
    (folder / "derivatives" / "sub-synth0000").mkdir(parents=True)  # killed between the two moves
    synthverse.save_subject(folder, subject)
    assert synthverse.has_subject(folder, 0)
    assert len(list(folder.rglob("*.nii.gz"))) == 2


def test_another_cohort_is_not_continued(cohort, tmp_path):
    synthverse.open_cohort(cohort, FACTS | {"Commit": "another"})
    with pytest.raises(data.DataError, match="other settings"):
        synthverse.open_cohort(cohort, FACTS | {"Seed": 4})
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(data.DataError, match="is not empty"):
        synthverse.open_cohort(tmp_path, FACTS)


@pytest.mark.slow
def test_warped_subjects_record_their_parents(meshes, tmp_path):
    options = synthverse.Options(
        spacing_mm=2.5, view="whole", meshes=meshes, thick_slices=False, orientations=False
    )
    subject = synthverse.make_subject(0, 0, "warped", options)
    assert subject.facts["parents"]["L2"] == "anna L2"
    assert synthverse.real_parents(subject.facts) == ["anna"]
    levels, rejected = data.complete_levels(subject.labels, subject.affine)
    assert levels == ("L1", "L2", "L3"), "what no parent has is cut by the border"
    assert "T12" in rejected and "L4" in rejected
    synthverse.open_cohort(tmp_path / "c", FACTS)
    synthverse.save_subject(tmp_path / "c", subject)
    synthverse.save_participants(tmp_path / "c")
    assert data.find_subjects(tmp_path / "c")[0].parents == ("anna",)


@pytest.mark.parametrize("name", ["lidc", "lidc0001", "tptbox", "tptct"])
def test_evaluation_subjects_are_never_parents(name, meshes):
    assert "lidc0001" not in _warped.find_parents(meshes)
    folder = meshes.parent / name
    folder.mkdir(exist_ok=True)
    with pytest.raises(data.DataError, match="evaluation subject"):
        _warped.find_parents(folder)


def test_warped_bones_have_one_canal_and_the_drawn_width(meshes):
    forms = _sizes.draw_person(np.random.default_rng(9)).forms
    parent = _warped.load_parent("anna", "L2", meshes / "anna" / "L2.ply")
    shape = _warped.warped_shape("L2", parent, forms["L2"])
    ends = ((-65.0, 65.0), (-85.0, 32.0), (-50.0, 44.0))
    x, y, z = (np.arange(a, b, 1.0, dtype=np.float32) for a, b in ends)
    solid = shape(x[:, None, None], y[None, :, None], z[None, None, :]) < 0.0
    assert measure.euler_number(solid, connectivity=1) == 0
    span = np.ptp(np.flatnonzero(solid.any((1, 2)))) + 1
    assert span == pytest.approx(forms["L2"].tp_span, abs=4.0)


def test_no_meshes(tmp_path):
    with pytest.raises(data.DataError, match="no such folder"):
        _warped.find_parents(tmp_path / "nowhere")
    (tmp_path / "x").mkdir()
    with pytest.raises(data.DataError, match="no SUBJECT/LEVEL"):
        _warped.find_parents(tmp_path / "x")


def test_the_choices_of_the_experiment_are_those_of_the_library():
    choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(Settings)}
    assert choices["family"] == (*synthverse.FAMILIES, "both")
    assert choices["field_of_view"] == typing.get_args(_subject.View)
