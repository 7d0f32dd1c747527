import numpy as np
import pytest
import trimesh

from dartjax import data, synthverse


@pytest.fixture(scope="module")
def case():
    return synthverse.synthetic_case(0)


def test_is_declared_synthetic(case):
    assert (case.subject, case.dataset_kind) == ("synth0000", "synthetic")
    assert "verse" not in case.dataset.lower()


def test_complete_lumbar_levels_and_a_cut_one(case):
    assert case.levels == ("L1", "L2", "L3", "L4", "L5")
    assert "border" in case.rejected["T12"]


def test_vertebrae_are_closed_rings_of_human_size(case):
    affine = np.asarray(case.ct.world_from_voxel, float)
    for level in ("L1", "L5"):
        surface = data.surface_of(case.labels, affine, data.label_of(level))
        solid = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
        assert solid.is_watertight
        assert solid.euler_number == 0, "the canal is open and nothing else is"
        assert 30e3 < solid.volume < 75e3
        assert (solid.extents > [60, 65, 40]).all()
        assert (solid.extents < [105, 95, 60]).all()


def test_levels_run_from_head_to_foot_without_touching(case):
    centers = [np.argwhere(case.labels == data.label_of(v))[:, 2].mean() for v in case.levels]
    assert (np.diff(centers) < -20).all()
    labels = case.labels
    for axis in range(3):
        a = np.moveaxis(labels, axis, 0)[:-1]
        b = np.moveaxis(labels, axis, 0)[1:]
        assert not ((a != b) & (a > 0) & (b > 0)).any()


def test_cortex_is_denser_than_the_inside(case):
    values = np.asarray(case.ct.values)
    bone = values[case.labels == data.label_of("L3")]
    water = 0.0192
    assert np.median(bone) > water * 1.1
    assert np.percentile(bone, 95) > water * 1.5
    assert values.min() == 0.0, "air around the body"


def test_same_seed_same_case(case):
    other = synthverse.synthetic_case(1)
    assert other.subject == "synth0001"
    assert other.ct_hash != case.ct_hash
    assert synthverse.synthetic_case(0).ct_hash == case.ct_hash
