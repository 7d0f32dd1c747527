"""Training of the similarity: steps to the truth, errors in mm, inputs and losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import metrics, transforms
from dartjax.mesh import TriangleMesh
from dartjax.models import PredictedError
from dartjax.ssm import posed
from dartjax.training import (
    Fit,
    FitErrors,
    direction_loss,
    disturbed_fit,
    moved_fit,
    predicted_step,
    prediction_loss,
    ranking_loss,
    step_to_truth,
    surface_error,
    view_pairs,
)
from tests.registration import scenes

TRUE = Fit(scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS)


@pytest.fixture(scope="module")
def wrong():
    return disturbed_fit(TRUE, FitErrors(), key=jax.random.key(3))


def surface(fit):
    return posed(scenes.model(), fit.pose, fit.coefficients)


def test_the_step_moves_a_wrong_fit_to_the_truth(wrong):
    assert float(jnp.linalg.norm(step_to_truth(TRUE, wrong))) > 1.0
    arrived = moved_fit(wrong, step_to_truth(TRUE, wrong))
    np.testing.assert_allclose(surface(arrived), surface(TRUE), atol=2e-3)
    np.testing.assert_allclose(step_to_truth(TRUE, TRUE), 0.0, atol=1e-4)


@pytest.mark.slow
def test_sizes_of_disturbances_are_log_uniform():
    keys = jax.random.split(jax.random.key(0), 200)
    lengths = jax.vmap(
        lambda k: jnp.linalg.norm(step_to_truth(TRUE, disturbed_fit(TRUE, FitErrors(), key=k)))
    )(keys)
    whole = FitErrors(least=1.0)
    longest = jax.vmap(
        lambda k: jnp.linalg.norm(step_to_truth(TRUE, disturbed_fit(TRUE, whole, key=k)))
    )(keys)
    # The logarithm of the factor is uniform, so half of the fits have one below 10^-1/2.
    assert 0.4 < float(jnp.mean(lengths < 0.316 * jnp.median(longest))) < 0.6


def test_the_error_is_close_to_the_mean_surface_distance(wrong):
    faces = scenes.model().faces
    found = float(surface_error(surface(wrong), surface(TRUE), faces))
    meshes = [TriangleMesh(surface(fit), faces) for fit in (wrong, TRUE)]
    expected = metrics.reconstruction_metrics(*meshes)["masd_mm"]
    # Correspondence slides along the surface: not less than the closest distance.
    assert expected * 0.98 < found < 1.35 * expected
    assert float(surface_error(surface(TRUE), surface(TRUE), faces)) == 0.0


def test_views_are_described_in_the_frame_of_the_fit(wrong):
    seen = scenes.observations(-30.0, 50.0)

    def of(fit, views):
        return view_pairs(scenes.model(), fit, views, seen.images, seen.masks, 32)

    views = jax.jit(lambda: of(TRUE, seen.cameras))()
    assert views.observed.shape == (2, 32, 32)
    np.testing.assert_allclose(
        views.observed, np.asarray(seen.images).reshape(2, 32, 2, 32, 2).mean((2, 4)), atol=1e-6
    )
    # The scene contains only the true vertebra: its render equals the radiograph.
    off = np.abs(np.asarray(views.rendered - views.observed)).mean()
    assert off < 0.1 * np.asarray(views.observed).mean()
    beams = np.asarray(views.code[:, :3])
    world = np.stack([np.asarray(r) for r in jax.vmap(lambda c: c.beam)(seen.cameras)])
    turned = world @ np.asarray(TRUE.pose.rotation().as_matrix())
    np.testing.assert_allclose(beams, turned, atol=1e-5)
    distance = np.linalg.norm(
        np.asarray(jax.vmap(lambda c: c.source)(seen.cameras))
        - np.asarray(TRUE.pose.translation()),
        axis=1,
    )
    np.testing.assert_allclose(views.code[:, 6], distance / 1000.0, rtol=1e-5)


def answer(log_masd, log_variance=0.0, turn=0.0, shift=0.0):
    return PredictedError(
        jnp.asarray(log_masd),
        jnp.asarray(log_variance),
        jnp.full(3, turn),
        jnp.full(3, shift),
        jnp.zeros(15),
    )


def test_losses_are_least_for_the_right_answer(wrong):
    error = jnp.asarray(3.0)
    costs = [
        float(prediction_loss(answer(x), error, wrong, TRUE)[0]) for x in (1.0, np.log(4.0), 2.0)
    ]
    assert costs[1] < min(costs[0], costs[2])
    _, numbers = prediction_loss(answer(np.log(4.0)), error, wrong, TRUE)
    assert float(numbers["masd_error_mm"]) == pytest.approx(0.0, abs=1e-5)
    sure = [
        float(prediction_loss(answer(1.0, s), error, wrong, TRUE)[0]) for s in (-4.0, -1.9, 2.0)
    ]
    assert sure[1] < min(sure[0], sure[2])  # the predicted variance: (.386)^2


def test_the_predicted_step_is_in_the_frame_of_the_vertebra():
    found = predicted_step(answer(1.0, turn=0.1), TRUE)
    turn = transforms.SO3.exp(0.05 * found[:3]) @ TRUE.pose.rotation()
    own = TRUE.pose.rotation() @ transforms.SO3.exp(jnp.full(3, 0.1))
    np.testing.assert_allclose(turn.as_matrix(), own.as_matrix(), atol=1e-5)


def test_the_ranking_loss_penalises_a_wrong_order():
    good, bad = answer(0.7), answer(1.6)
    errors = jnp.asarray(1.0), jnp.asarray(4.0)
    assert float(ranking_loss((good, bad), errors)) == 0.0
    assert float(ranking_loss((bad, good), errors)) > 0.4
    assert float(ranking_loss((bad, good), errors[::-1])) == 0.0


def test_the_direction_loss_is_zero_if_the_gradient_points_away():
    way = jnp.array([1.0, -2.0, 0.5])
    assert float(direction_loss(-way, way)[0]) == pytest.approx(0.0, abs=1e-6)
    assert float(direction_loss(way, way)[1]) == pytest.approx(-1.0)
    lost, cosine = direction_loss(jnp.zeros(3), way)
    assert float(cosine) == 0.0 and np.isfinite(float(lost))
    slope = jax.grad(lambda g: direction_loss(g, way)[0])(jnp.zeros(3))
    assert np.isfinite(np.asarray(slope)).all()
