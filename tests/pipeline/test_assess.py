"""Quality assessment: scene features, probabilities, reasons to abstain."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, registration, ssm, transforms
from dartjax.pipeline import SCENE_FEATURE_NAMES
from dartjax.pipeline import _assess as assess
from dartjax.pipeline._task import indices_by_scene
from dartjax.registration import FEATURE_NAMES
from tests.pipeline.answers import ALL, LEVELS, MODELS, OWN, answer, stored, task


def mean_spine():
    """Make three levels of the mean spine, and their estimates."""
    prior = data.load_spine_prior()
    order = registration.order_of(LEVELS, prior)
    bones = jax.vmap(lambda a, b: a @ b.inverse())(
        ssm.spine_frames(prior.mean), prior.T_vertebra_frame
    )
    each = [jax.tree.map(lambda leaf, at=at: leaf[at], bones) for at in order.place]
    return [task(level) for level in LEVELS], [answer(pose) for pose in each]


def of_scene(tasks, estimates, own=None, losses=None):
    own = np.zeros((len(tasks), OWN)) if own is None else own
    losses = np.zeros((len(tasks), 2, 2)) if losses is None else losses
    found = assess.scene_features(tasks, estimates, own, losses)
    return {name: found[:, i] for i, name in enumerate(SCENE_FEATURE_NAMES)}


def test_consistent_neighbours_have_no_distance():
    feature = of_scene(*mean_spine())
    np.testing.assert_allclose(feature["neighbour_distance_mm"], 0.0, atol=1e-2)
    np.testing.assert_allclose(feature["neighbour_angle_deg"], 0.0, atol=1e-2)


def test_an_estimate_outside_the_spine_is_detected():
    tasks, estimates = mean_spine()
    moved = transforms.perturb(
        estimates[1].pose, jnp.array([0.0, np.deg2rad(10.0), 0.0]), jnp.array([6.0, 0.0, 0.0])
    )
    estimates[1] = answer(moved)
    feature = of_scene(tasks, estimates)
    assert feature["neighbour_distance_mm"][1] == pytest.approx(6.0, abs=1e-2)
    assert feature["neighbour_angle_deg"][1] == pytest.approx(10.0, abs=1e-2)
    expected = np.sqrt(np.mean(feature["neighbour_distance_mm"] ** 2))
    np.testing.assert_allclose(feature["scene_neighbour_distance_mm"], expected, rtol=1e-5)


def test_abstained_vertebrae_are_no_neighbours():
    tasks, estimates = mean_spine()
    tasks[1] = dataclasses.replace(tasks[1], abstention="too little was detected")
    estimates[1] = answer(transforms.SE3.from_translation(jnp.array([90.0, 0.0, 0.0])))
    feature = of_scene(tasks, estimates)
    np.testing.assert_allclose(feature["neighbour_distance_mm"][[0, 2]], 0.0, atol=0.05)
    assert np.isnan(feature["neighbour_distance_mm"][1])


def test_scenes_are_independent():
    tasks = [task(level, pair) for pair in (0, 1) for level in LEVELS]
    assert indices_by_scene(tasks) == [[0, 1, 2], [3, 4, 5]]
    own = np.zeros((6, OWN))
    own[:, FEATURE_NAMES.index("mask_gap_mm")] = [3, 4, 5, 0, 0, 0]
    losses = np.zeros((6, 2, 2))
    losses[:3, 0] = [[0.1, 0.6], [0.2, 0.5], [0.6, 0.1]]
    losses[3:, 1, 0] = [0.1, 0.2, 0.4]
    feature = of_scene(tasks, mean_spine()[1] * 2, own, losses)
    gap = np.sqrt(50.0 / 3.0)
    np.testing.assert_allclose(feature["scene_mask_gap_mm"], [gap] * 3 + [0.0] * 3)
    mean, worst = feature["image_loss_above_scene"], feature["image_loss_worst_above_scene"]
    np.testing.assert_allclose(mean, [0.0, 0.0, 0.0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(worst, [0.1, 0.0, 0.4, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(
        feature["mask_loss_above_scene"], [0, 0, 0, -0.05, 0.0, 0.1], atol=1e-12
    )


def test_a_vertebra_larger_than_its_neighbours_is_detected():
    tasks, estimates = mean_spine()
    larger = MODELS["T9"]
    growth = larger.modes.at[0].set(0.1 * larger.mean_shape)
    tasks[1] = dataclasses.replace(tasks[1], model=dataclasses.replace(larger, modes=growth))
    estimates[1] = estimates[1]._replace(coefficients=jnp.zeros(15).at[0].set(1.0))
    feature = of_scene(tasks, estimates)
    np.testing.assert_allclose(feature["size_off_scene"], [0.0, np.log(1.1), 0.0], atol=1e-5)


def test_one_vertebra_alone_has_no_scene():
    found = assess.scene_features([task()], [answer()], np.zeros((1, OWN)), np.zeros((1, 2, 2)))
    assert np.isnan(found).all()


def test_missing_scene_features_count_as_average():
    features = np.full((2, ALL), 2.0)
    features[0, OWN:] = np.nan
    chance = assess.failure_probabilities(features, stored())
    np.testing.assert_allclose(chance, 0.5, atol=1e-6)
    features[1, 0] = np.nan  # features of the vertebra itself must be finite
    assert assess.failure_probabilities(features, stored())[1] == 1.0


def test_a_model_of_other_features_is_rejected():
    with pytest.raises(data.DataError, match="other features"):
        assess.failure_probabilities(np.zeros((1, ALL)), stored(features=("a",)))


def test_assessments_are_inflated_and_abstentions_have_reasons():
    features = np.full((2, ALL), 2.0)
    features[0, 3] = -1.0
    measured = assess.QualityMeasures(
        features,
        np.zeros((2, 2, 2)),
        np.full((2, 5), 0.5),
        np.full((2, 2, 2, 3), 0.25),
        np.stack([np.eye(3)] * 2),
    )
    good, bad = assess.assess_quality(measured, stored())
    np.testing.assert_allclose(good.vertex_std_mm, 1.0)
    np.testing.assert_allclose(good.path_std_mm, 0.75)
    np.testing.assert_allclose(bad.vertex_std_mm, 2.5)  # larger inflation beyond the threshold
    np.testing.assert_allclose(bad.path_std_mm, 2.0)
    np.testing.assert_allclose(good.covariance, 4.0 * np.eye(3))  # variances: squared
    np.testing.assert_allclose(bad.covariance, 25.0 * np.eye(3))
    assert good.probability == pytest.approx(1.0 / (1.0 + np.exp(3.0)))
    reasons = assess.abstention_reasons([good, bad], 0.4)
    assert reasons == ["", "failure probability 0.50, accepted up to 0.40"]
    failed = bad._replace(probability=float("nan"))
    assert assess.abstention_reasons([failed], 1.0) != [""]
