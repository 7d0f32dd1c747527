"""Ground truth of a scan and the plan of its views, without rendering."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, mesh, ssm, transforms
from dartjax.data import DataError
from dartjax.simulation import dataset
from dartjax.simulation.dataset._plan import plan_pairs, plan_shots
from dartjax.simulation.dataset._truth import find_truth, load_or_find_truth, truth_to_json
from dartjax.ssm import build
from tests.data import phantoms

AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])
SETTINGS = dataset.Settings(
    seed=0,
    views="random",
    num_views=23,
    image_size=64,
    detector_mm=(300.0, 300.0),
    isocenter_shift=20.0,
    kvp=(70, 110),
    low_dose=0.3,
    collimated=0.3,
    tools=0.3,
    pair_deg=(20.0, 160.0),
    dense_fit=False,
)


def case_of(labels, affine):
    hu = phantoms.hounsfield(labels > 0)
    return data.build_case("someone", hu, labels, affine, dataset="phantoms", kind="synthetic")


def unfitted(model, vertices, faces, **options):
    """The mean shape at the centre of the solid, as a replacement of the dense fit."""
    there = mesh.solid_centroid(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces))
    shift = there - mesh.solid_centroid(model.mean_shape, model.faces)
    shape = model.mean_shape + shift[None]
    pose = transforms.SE3.from_translation(shift)
    carried = ssm.landmarks(model, shape), ssm.paths(model, shape)
    return ssm.Registration(carried[0], pose, 0.0, jnp.zeros(0), shape, carried[1])


@pytest.fixture(scope="module")
def truth():
    """Ground truth of a scan with three levels; one of them is cut by the border."""
    labels = np.zeros((40, 40, 120), np.uint8)
    for label, height in ((19, 90), (20, 50), (21, 4)):
        labels[phantoms.ring(labels.shape, (20, 20, height))] = label
    return find_truth(case_of(labels, np.diag([1.5] * 3 + [1.0])), dense_fit=False)


@pytest.mark.slow
def test_a_poor_dense_fit_gives_null_with_the_reason(monkeypatch):
    monkeypatch.setattr(build, "dense_landmarks", unfitted)
    labels = phantoms.ring() * np.uint8(20)
    found = find_truth(case_of(labels, phantoms.AFFINE), dense_fit=True)
    (vertebra,) = found.vertebrae
    assert vertebra.whole and vertebra.dense_dice is not None and vertebra.dense_dice < 0.85
    assert vertebra.landmarks_world is None and vertebra.paths_world is None
    assert f"Dice of {vertebra.dense_dice:.2f}" in vertebra.reason
    assert not vertebra.paths_feasible.any()
    entry = truth_to_json(found)["vertebrae"][0]
    assert entry["landmarks_world"] is None and entry["paths_world"] is None and entry["reason"]


@pytest.mark.slow
def test_a_good_fit_is_written_and_read_back(monkeypatch, tmp_path):
    monkeypatch.setenv("DARTJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "dense_landmarks", unfitted)
    model = data.load_shape_model("L3")
    vertices = np.asarray(model.mean_shape, np.float64) + np.array([70.0, 90.0, 50.0])
    solid = mesh.voxelize(vertices, np.asarray(model.faces), np.zeros(3), (140, 140, 100))
    case = case_of(solid * np.uint8(22), AFFINE)
    found = find_truth(case, dense_fit=True)
    (vertebra,) = found.vertebrae
    assert vertebra.dense_dice is not None and vertebra.dense_dice > 0.95
    expected = ssm.landmarks(model, jnp.asarray(vertices, jnp.float32))
    assert vertebra.landmarks_world is not None
    assert np.linalg.norm(vertebra.landmarks_world - np.asarray(expected), axis=1).max() < 1.0
    assert vertebra.wall_distance_mm is not None
    feasible = vertebra.wall_distance_mm >= 2.5
    assert (vertebra.paths_feasible == feasible).all()
    path = tmp_path / "truth.json"
    back = load_or_find_truth(path, case, lambda: found)
    assert truth_to_json(back) == truth_to_json(found)

    def not_again():
        raise AssertionError("the truth is on disk")

    again = load_or_find_truth(path, case, not_again)
    np.testing.assert_array_equal(
        again.vertebrae[0].landmarks_world, back.vertebrae[0].landmarks_world
    )
    other = dataclasses.replace(case, ct_hash="0" * 64)
    with pytest.raises(DataError, match="another CT"):
        load_or_find_truth(path, other, not_again)


def test_incomplete_levels_are_kept_with_their_reason(truth):
    assert truth.levels == ("T12", "L1", "L2")
    assert [vertebra.whole for vertebra in truth.vertebrae] == [True, True, False]
    assert "border" in truth.vertebrae[2].reason
    assert "no dense fit" in truth.vertebrae[0].reason
    np.testing.assert_allclose(truth.vertebrae[1].center_world, [30.0, 30.0, 75.0], atol=0.01)


def same_shot(first, second):
    leaves = zip(jax.tree.leaves(first.camera), jax.tree.leaves(second.camera), strict=True)
    assert all(np.array_equal(a, b) for a, b in leaves)
    assert first[:2] == second[:2] and first.variants == second.variants
    assert first.kvp == second.kvp
    keys = [jax.random.key_data(shot.noise_key) for shot in (first, second)]
    assert np.array_equal(*keys)


def test_a_view_depends_on_seed_subject_and_number_alone(truth):
    block = SETTINGS.blocks()[1]
    shots = plan_shots(truth, SETTINGS, block)
    (alone,) = plan_shots(truth, SETTINGS, block[3:4])
    same_shot(shots[3], alone)
    more = dataclasses.replace(SETTINGS, num_views=500)
    same_shot(shots[3], plan_shots(truth, more, block)[3])
    for other in (truth._replace(subject="else"), truth):
        seed = 0 if other is not truth else 1
        changed = dataclasses.replace(SETTINGS, seed=seed)
        different = plan_shots(other, changed, block)[3]
        assert not np.array_equal(different.camera.source, shots[3].camera.source)


def test_blocks_are_aimed_at_every_whole_level_in_turn(truth):
    assert [len(block) for block in SETTINGS.blocks()] == [10, 10, 3]
    blocks = [plan_shots(truth, SETTINGS, b)[:1] for b in SETTINGS.blocks()]
    targets = [shots[0].target for shots in blocks]
    assert sorted(targets[:2]) == ["L1", "T12"] and targets[2] == targets[0]


def test_pairs_are_within_their_angles(truth):
    shots = plan_shots(truth, SETTINGS, SETTINGS.blocks()[0])
    pairs = plan_pairs(shots, SETTINGS, truth.subject)
    assert len(pairs) == 5
    for pair in pairs:
        first, second = (np.asarray(shots[view].camera.beam) for view in pair["views"])
        angle = np.degrees(np.arccos(np.clip(first @ second, -1.0, 1.0)))
        assert abs(angle - pair["angle_deg"]) < 0.05 and 20.0 <= pair["angle_deg"] <= 160.0
    alone = plan_pairs(shots[:1], SETTINGS, truth.subject)
    assert alone == []


def test_orthogonal_views_come_in_pairs_of_ap_and_lateral(truth):
    settings = dataclasses.replace(SETTINGS, views="orthogonal")
    shots = plan_shots(truth, settings, settings.blocks()[0])
    assert [shot.name for shot in shots] == 5 * ["AP", "LAT_L"]
    for shot, nominal in zip(shots, 5 * [[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]], strict=True):
        assert np.asarray(shot.camera.beam) @ np.array(nominal) > np.cos(np.radians(7.1))
    pairs = plan_pairs(shots, settings, truth.subject)
    assert [pair["views"] for pair in pairs] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert all(abs(pair["angle_deg"] - 90.0) < 10.1 for pair in pairs)
