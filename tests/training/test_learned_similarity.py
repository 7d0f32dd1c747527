"""The learned similarity in a fit: its gradient, its input, and flagged results."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.models import SIMILARITY_PRESETS, MultiViewSimilarity
from dartjax.registration import (
    STATUS_MEANING,
    FitOptions,
    FitParameters,
    ObjectiveWeights,
    Reconstruction,
    Scale,
    descent_direction,
    fit,
    objective,
)
from dartjax.registration._objective import evidence_at_scale
from dartjax.render import SplatOptions, ncc
from dartjax.ssm import landmarks, posed
from dartjax.training import (
    Fit,
    flag_unreliable,
    landmark_rms,
    learned_score,
    moved_fit,
    one_shot_fit,
    predicted_error,
    predicted_step,
    view_pairs,
)
from tests.registration import scenes

NET = MultiViewSimilarity(SIMILARITY_PRESETS["smoke"])
SIZE = NET.config.size
TRUE = Fit(scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS)
ALONE = ObjectiveWeights(similarity=0.0, silhouette=0.0, landmarks=0.0, prior=0.0)


@pytest.fixture(scope="module")
def seen():
    return scenes.observations(-30.0, 50.0)


@pytest.fixture(scope="module")
def params(seen):
    """Make untrained parameters with different outputs."""
    pairs = view_pairs(scenes.model(), TRUE, seen.cameras, seen.images, seen.masks, SIZE)
    found = jax.jit(NET.init)(jax.random.key(0), pairs, jnp.ones(2, bool))["params"]
    leaves, structure = jax.tree.flatten(found)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    shaken = [
        leaf + 0.05 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, shaken)


@pytest.mark.slow
def test_gradient_of_a_score_of_all_views_against_finite_differences(x64, seen, params):
    def widen(tree):
        return jax.tree.map(
            lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
            tree,
        )

    evidence = evidence_at_scale(widen(seen), SIZE, 0.0)
    model, start, score = widen(scenes.model()), widen(scenes.disturbed_start()), learned_score
    options = SplatOptions(window=SIZE, antialias=1.3)

    def loss(flat, wide):
        x = FitParameters(flat[:3], flat[3:6], flat[6:])
        return objective(x, model, start, evidence, ncc, ALONE, options, score(NET, wide))

    wide = widen(params)
    both = jax.jit(jax.value_and_grad(loss))
    x = 0.1 * jnp.asarray(np.random.default_rng(0).normal(size=21))
    gradient = both(x, wide)[1]
    assert float(jnp.linalg.norm(gradient)) > 1e-4
    for i in (0, 2, 3, 5, 6, 20):
        step = jnp.zeros(21).at[i].set(1e-5)
        expected = (both(x + step, wide)[0] - both(x - step, wide)[0]) / 2e-5
        assert float(gradient[i]) == pytest.approx(float(expected), rel=2e-3, abs=1e-7)


@pytest.mark.slow
def test_in_a_fit_the_network_gets_the_input_of_training(seen, params):
    options = FitOptions(
        (ncc,), (Scale(SIZE, 0.0, 1, 0.0),), ALONE, multiview=learned_score(NET, params)
    )

    @jax.jit
    def both(seen):
        predicted = predicted_error(NET, params, scenes.model(), seen, TRUE)
        found = fit(scenes.model(), seen, TRUE.pose, options, coefficients=TRUE.coefficients)
        return predicted.log_masd, found

    predicted, found = both(seen)
    assert float(found.loss) == pytest.approx(float(predicted), rel=2e-2)
    # With a learning rate of 0 the result equals the given start.
    np.testing.assert_allclose(found.coefficients, TRUE.coefficients, atol=1e-6)


@pytest.mark.slow
def test_the_direction_of_descent_is_that_of_the_first_step(seen):
    start = Fit(scenes.disturbed_start(), jnp.zeros(15))
    step = jax.jit(
        lambda s: descent_direction(scenes.model(), s, start.pose, start.coefficients, scenes.QUICK)
    )(seen)
    before, after = (
        scenes.mean_vertex_error(f.pose, f.coefficients)
        for f in (start, moved_fit(start, 0.3 * step / jnp.linalg.norm(step)))
    )
    assert after < before


@pytest.mark.slow
def test_the_one_shot_start_is_the_step_of_the_heads(seen, params):
    first = Fit(scenes.disturbed_start(), jnp.zeros(15))
    predicted = predicted_error(NET, params, scenes.model(), seen, first)
    expected = moved_fit(first, predicted_step(predicted, first))
    found = one_shot_fit(NET, params, scenes.model(), seen, first)
    np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-5)
    np.testing.assert_allclose(found.pose.parameters(), expected.pose.parameters(), atol=1e-3)


def constant_prediction(params, masd_mm, log_variance=-4.0):
    """Make parameters with which the network predicts a constant."""
    head = params["head"]
    wanted = np.log(np.expm1(np.log1p(masd_mm))) - 1.0  # through the softplus
    bias = jnp.zeros_like(head["bias"]).at[:2].set(jnp.array([wanted, log_variance + 2.0]))
    return params | {"head": {"kernel": jnp.zeros_like(head["kernel"]), "bias": bias}}


_flagged_status = jax.jit(
    lambda *each: flag_unreliable(NET, each[0], scenes.model(), *each[1:]).status
)


def status_of(seen, params, *, shift=0.0, before=0):
    pose = moved_fit(TRUE, jnp.zeros(21).at[3].set(shift / 2.5)).pose
    status = jnp.asarray(before, jnp.int32)
    loss, history, agreement = jnp.zeros(()), jnp.zeros(1), jnp.ones(2)
    found = Reconstruction(pose, TRUE.coefficients, loss, history, agreement, status)
    return STATUS_MEANING[int(_flagged_status(params, seen, found))]


def test_large_predicted_errors_and_distant_landmarks_are_flagged(seen, params):
    good, bad = constant_prediction(params, 1.0), constant_prediction(params, 6.0)
    assert status_of(seen, good) == "converged"
    assert "predicts a large error" in status_of(seen, bad)
    assert "predicts a large error" in status_of(
        seen, constant_prediction(params, 1.0, log_variance=1.0)
    )
    assert "landmarks" in status_of(seen, good, shift=20.0)
    assert "masks" in status_of(seen, bad, before=2)


def test_residuals_of_landmarks_are_in_standard_deviations(seen):
    points = landmarks(scenes.model(), posed(scenes.model(), TRUE.pose, TRUE.coefficients))
    assert float(landmark_rms(points, seen)) == pytest.approx(0.0, abs=1e-3)
    tight = dataclasses.replace(seen, landmark_sigma=jnp.full((2, 10), 2.0))
    beam = jax.tree.map(lambda leaf: leaf[0], seen.cameras).beam
    across = jnp.cross(beam, jnp.array([0.0, 0.0, 1.0]))
    shifted = points + 4.0 * (across / jnp.linalg.norm(across))[None]
    one = dataclasses.replace(tight, view_valid=jnp.array([True, False]))
    # 4 mm in one of two coordinates, sigma 2 mm.
    assert float(landmark_rms(shifted, one)) == pytest.approx(2.0 / np.sqrt(2.0), rel=0.05)
    unseen = dataclasses.replace(seen, landmark_sigma=jnp.full((2, 10), jnp.inf))
    assert float(landmark_rms(shifted, unseen)) == 0.0
