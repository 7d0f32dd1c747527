"""Failure detection against brute force, scipy and known probabilities."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from dartjax import data, ssm, transforms
from dartjax.observations import PARTNER
from dartjax.registration import (
    FEATURE_NAMES,
    Agreement,
    FailureFeatures,
    Reconstruction,
    Uncertainty,
    abstain,
    abstention_threshold,
    auroc,
    failure_features,
    failure_probability,
    fit_failure_model,
    risk_coverage,
    with_moved_cameras,
)
from tests.registration import scenes

NUM_MODES = 5


def features_and_failures(num_cases=400, seed=0):
    """Draw features of very different scales, and failures from a known logistic model."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_cases, 3)) * np.array([1.0, 50.0, 0.01]) + 7.0
    logit = 1.5 * (features[:, 0] - 7.0) - 0.04 * (features[:, 1] - 7.0) - 0.5
    probability = 1.0 / (1.0 + np.exp(-logit))
    return features, rng.uniform(size=num_cases) < probability, probability


def test_fit_against_scipy(x64):
    features, failed, _ = features_and_failures()
    model = jax.jit(fit_failure_model)(jnp.asarray(features), jnp.asarray(failed))
    columns = (features - features.mean(0)) / features.std(0)

    def loss(x):
        logit = columns @ x[:3] + x[3]
        likelihood = np.sum(np.logaddexp(0.0, logit) - failed * logit)
        return likelihood + 0.5 * np.sum(x[:3] ** 2) + 0.5e-3 * x[3] ** 2

    best = optimize.minimize(loss, np.zeros(4), tol=1e-12).x
    np.testing.assert_allclose(model.weights, best[:3], atol=1e-4)
    assert float(model.bias) == pytest.approx(best[3], abs=1e-4)


def test_probabilities_are_calibrated_on_held_out_cases():
    features, failed, _ = features_and_failures(4000)
    model = fit_failure_model(jnp.asarray(features, jnp.float32), jnp.asarray(failed))
    features, failed, probability = features_and_failures(4000, seed=1)
    found = jax.vmap(lambda x: failure_probability(model, x))(jnp.asarray(features, jnp.float32))
    assert np.mean(np.abs(np.asarray(found) - probability)) < 0.02
    assert auroc(np.asarray(found), failed) > auroc(probability, failed) - 0.01
    for low in (0.0, 0.25, 0.5, 0.75):
        chosen = (np.asarray(found) >= low) & (np.asarray(found) < low + 0.25)
        assert abs(failed[chosen].mean() - np.asarray(found)[chosen].mean()) < 0.05


def test_constant_features_get_no_weight():
    features, failed, _ = features_and_failures(60)
    features = np.concatenate([features, np.full((60, 1), 3.0)], axis=1).astype(np.float32)
    features[5] = np.nan
    model = fit_failure_model(jnp.asarray(features), jnp.asarray(failed))
    assert all(np.isfinite(leaf).all() for leaf in (model.mean, model.weights, model.bias))
    assert float(model.weights[3]) == 0.0
    assert float(failure_probability(model, jnp.asarray(features[5]))) == 1.0
    changed = jnp.asarray(features[0]).at[3].set(99.0)
    same = failure_probability(model, jnp.asarray(features[0]))
    assert float(failure_probability(model, changed)) == float(same)


def test_a_perfect_separation_and_a_single_class_stay_finite():
    features = jnp.linspace(-1.0, 1.0, 40)[:, None]
    model = fit_failure_model(features, features[:, 0] > 0.0)
    assert 1.0 < float(model.weights[0]) < 20.0
    never = fit_failure_model(features, jnp.zeros(40, bool))
    assert float(failure_probability(never, features[0])) < 0.05


def brute_auroc(probability, failed):
    pairs = [(p, q) for p in probability[failed] for q in probability[~failed]]
    return np.mean([1.0 if p > q else 0.5 if p == q else 0.0 for p, q in pairs])


def test_auroc_against_all_pairs():
    rng = np.random.default_rng(0)
    probability = rng.integers(0, 8, 60) / 8.0  # with ties
    failed = rng.uniform(size=60) < 0.3
    assert auroc(probability, failed) == pytest.approx(brute_auroc(probability, failed))
    assert auroc(failed.astype(float), failed) == 1.0
    assert np.isnan(auroc(probability, np.zeros(60, bool)))


def test_risk_coverage_against_its_definition():
    rng = np.random.default_rng(1)
    probability, error = rng.uniform(size=30), rng.exponential(size=30)
    curve = risk_coverage(probability, error)
    trusted = np.argsort(probability)
    for kept in (1, 7, 30):
        assert curve.coverage[kept - 1] == pytest.approx(kept / 30)
        assert curve.risk[kept - 1] == pytest.approx(error[trusted[:kept]].mean())
        assert curve.threshold[kept - 1] == probability[trusted[kept - 1]]
    assert curve.risk_at(0.9) == pytest.approx(error[trusted[:27]].mean())
    assert curve.risk_at(1.0) == pytest.approx(error.mean())
    assert curve.area == pytest.approx(curve.risk.mean())


def test_risk_coverage_of_ties_is_the_mean_over_their_orders():
    probability, error = np.array([0.2, 0.5, 0.5, 0.9]), np.array([0.0, 1.0, 3.0, 5.0])
    expected = [0.0, 1.0, 4.0 / 3.0, 9.0 / 4.0]
    np.testing.assert_allclose(risk_coverage(probability, error).risk, expected)
    backwards = risk_coverage(probability[::-1], error[::-1])
    np.testing.assert_allclose(backwards.risk, expected)
    with pytest.raises(ValueError, match="no cases"):
        risk_coverage(np.zeros(0), np.zeros(0))


def test_the_threshold_keeps_the_risk():
    probability, error = np.array([0.1, 0.4, 0.4, 0.8]), np.array([0.0, 0.0, 1.0, 1.0])
    assert abstention_threshold(probability, error, max_risk=0.4) == 0.4
    # Half of a tie cannot be kept.
    assert abstention_threshold(probability, error, max_risk=0.26) == 0.1
    assert abstention_threshold(probability, error, max_risk=1.0) == 0.8
    assert abstention_threshold(probability, error + 1.0, max_risk=0.5) == -1.0


def result(seen, *, coefficients=None):
    """Make a result of `fit`, and an uncertainty with hand-chosen values."""
    coefficients = jnp.zeros(NUM_MODES) if coefficients is None else coefficients
    loss = jnp.asarray(0.1)
    found = Reconstruction(
        pose=scenes.TRUE_POSE,
        coefficients=coefficients,
        loss=loss,
        history=loss[None],
        mask_agreement=jnp.array([0.95, 0.9]),
        status=jnp.asarray(0),
    )
    unknowns = 6 + NUM_MODES
    uncertainty = Uncertainty(
        covariance=jnp.eye(unknowns),
        vertices=jnp.broadcast_to(4.0 * jnp.eye(3), (2048, 3, 3)),
        landmarks=jnp.broadcast_to(jnp.eye(3), (10, 3, 3)),
        paths=jnp.stack([jnp.eye(6), 9.0 * jnp.eye(6)]),
        spectrum=jnp.logspace(-2.0, 1.0, unknowns),
        noise_scale=jnp.asarray(0.01),
        agreement=Agreement(
            scores=jnp.array([0.7, 0.5]),
            overlaps=jnp.array([0.96, 0.92]),
            residuals=jnp.ones((2, 10)).at[0, 3].set(4.0),
        ),
    )
    return found, uncertainty


@pytest.mark.slow
def test_features_match_their_definitions():
    model, seen = ssm.truncate(scenes.model(), NUM_MODES), scenes.observations(-30.0, 50.0)
    seen = dataclasses.replace(seen, landmark_sigma=seen.landmark_sigma.at[0, 3].set(jnp.inf))
    found, uncertainty = result(seen, coefficients=jnp.array([0.0, -3.0, 1.0, 0.0, 0.0]))
    values = jax.jit(failure_features)(model, seen, found, uncertainty)
    assert values._fields == FEATURE_NAMES
    feature = {name: float(value) for name, value in values._asdict().items()}
    expected = {
        "image_loss": 0.4,
        "image_loss_worst": 0.5,
        "mask_loss": 0.06,
        "mask_overlap_least": 0.9,
        "landmark_residual": np.sqrt(0.5),
        "landmark_residual_worst": 1.0,
        "landmarks_unseen": 0.05,
        "coefficient_max": 3.0,
        "coefficient_rms": np.sqrt(2.0),
        "curvature_condition": 3.0,
        "curvature_least": -2.0,
        "noise_scale": -2.0,
        "vertex_std_mm": 2.0,
        "path_std_mm": 3.0,
        "num_views": 2.0,
        "restart_spread_mm": 0.0,
    }
    sine = feature["view_angle_sine"]
    assert 0.9 < sine < np.sin(np.deg2rad(80.0)) + 1e-3
    for name, value in expected.items():
        assert feature[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@functools.cache
def features_by_name():
    """Make the features of a scene as a function of its detections, and the ground truth."""
    model, seen = scenes.model(), scenes.observations(-30.0, 50.0)
    found, uncertainty = result(seen, coefficients=scenes.TRUE_COEFFICIENTS)

    @jax.jit
    def features(seen, detected, pose):
        moved = dataclasses.replace(found, pose=pose)
        return failure_features(model, seen, moved, uncertainty, detected=detected)

    def named(seen, detected, pose=scenes.TRUE_POSE):
        return jax.device_get(features(seen, detected, pose))._asdict()

    return seen, named


@pytest.mark.slow
def test_features_of_the_ground_truth_are_small():
    seen, named = features_by_name()
    feature = named(seen, seen)
    assert feature["sightings_disagreeing"] == 0.0
    # The silhouette of the observations is rendered a little differently.
    for name in ("sightings_residual", "landmark_bias_mm", "landmark_gap_mm", "mask_shift_mm"):
        assert feature[name] < 0.3, name
    assert feature["mask_gap_mm"] < 1.5
    assert feature["landmark_fit_distance_mm"] < 3.0


@pytest.mark.slow
def test_detections_count_even_if_the_fit_did_not_use_them():
    seen, named = features_by_name()
    away = seen.landmarks.at[0, 2, 0].add(30.0)
    detected = dataclasses.replace(seen, landmarks=away)
    dropped = seen.landmark_sigma.at[0, 2].set(jnp.inf)
    feature = named(dataclasses.replace(detected, landmark_sigma=dropped), detected)
    assert feature["sightings_disagreeing"] == pytest.approx(1.0 / 20.0)
    # One of twenty, clipped at 6 standard deviations in two directions.
    assert feature["sightings_residual"] == pytest.approx(6.0 / np.sqrt(40.0), rel=0.02)
    assert feature["landmark_gap_mm"] < 0.3


def test_a_left_right_swap_is_no_outlier():
    seen, named = features_by_name()
    partner = jnp.asarray(PARTNER)
    detected = dataclasses.replace(
        seen, landmarks=seen.landmarks.at[1].set(seen.landmarks[1][partner])
    )
    assert named(seen, detected)["sightings_disagreeing"] == 0.0


def test_a_wrong_camera_increases_the_distance_between_rays():
    seen, named = features_by_name()
    up = transforms.SE3.from_translation(jnp.array([0.0, 0.0, 8.0]))
    still = transforms.SE3.identity()
    motions = jax.tree.map(lambda a, b: jnp.stack([a, b]), still, up)
    wrong = with_moved_cameras(seen, motions)
    feature = named(wrong, wrong)
    # Half of the 8 mm in each view, its rms over the two axes of the image.
    assert feature["landmark_gap_mm"] == pytest.approx(4.0 / np.sqrt(2.0), rel=0.1)
    assert feature["mask_gap_mm"] == pytest.approx(4.0 / np.sqrt(2.0), abs=1.0)
    assert feature["mask_shift_mm"] == pytest.approx(8.0, abs=1.0)
    assert feature["landmark_bias_mm"] == pytest.approx(8.0, rel=0.1)


def test_a_shifted_result_has_mask_and_landmark_errors():
    seen, named = features_by_name()
    moved = transforms.perturb(scenes.TRUE_POSE, jnp.zeros(3), jnp.array([0.0, 0.0, 5.0]))
    feature, before = named(seen, seen, moved), named(seen, seen)
    assert feature["mask_shift_mm"] == pytest.approx(5.0, abs=0.7)
    apart = feature["landmark_fit_distance_mm"]
    assert before["landmark_fit_distance_mm"] + 3.0 < apart < 8.0


def test_features_without_detections_are_finite():
    seen, named = features_by_name()
    blind = dataclasses.replace(
        seen,
        masks=jnp.zeros_like(seen.masks),
        landmark_sigma=jnp.full_like(seen.landmark_sigma, jnp.inf),
    )
    feature = named(blind, blind)
    assert all(np.isfinite(value) for value in feature.values())
    new = FEATURE_NAMES[FEATURE_NAMES.index("sightings_disagreeing") :]
    assert all(feature[name] == 0.0 for name in new)


@pytest.mark.slow
def test_spread_of_restarts():
    model, seen = ssm.truncate(scenes.model(), NUM_MODES), scenes.observations(-30.0, 50.0)
    found, uncertainty = result(seen)
    shift = jnp.array([0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0])  # quaternion, then 2 mm along x
    moved = dataclasses.replace(found, pose=type(found.pose)(found.pose.parameters() + shift))
    restarts = jax.tree.map(lambda a, b: jnp.stack([a, b]), found, moved)
    values = failure_features(model, seen, found, uncertainty, restarts=restarts)
    assert float(values.restart_spread_mm) == pytest.approx(np.sqrt(1.0 / 3.0), rel=1e-3)


def test_abstaining():
    seen = scenes.observations(-30.0, 50.0)
    found, _ = result(seen)
    not_finite = dataclasses.replace(found, status=jnp.asarray(1))
    assert not abstain(found, jnp.asarray(0.2), 0.3)
    assert not abstain(found, jnp.asarray(0.3), 0.3)
    assert abstain(found, jnp.asarray(0.31), 0.3)
    assert abstain(found, jnp.asarray(jnp.nan), 0.3)
    assert abstain(not_finite, jnp.asarray(0.0), 0.3)


def test_the_packaged_model_is_of_these_features():
    stored = data.load_failure_model()
    assert stored.features[: len(FEATURE_NAMES)] == FEATURE_NAMES == FailureFeatures._fields
