"""Training and use of the isolation network: loss, errors, initial estimates, images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.models import ISOLATION_PRESETS, Isolated, IsolationNet, no_hint
from dartjax.render import splat, two_compartment
from dartjax.ssm import posed
from dartjax.training import (
    ISOLATION_SPLATS,
    EstimateErrors,
    disturbed_surface,
    isolate_vertebra,
    isolated_observations,
    isolation_errors,
    isolation_hint,
    isolation_loss,
)
from tests.registration import scenes


def answer(thickness, log_error=0.0):
    image = jnp.asarray(thickness, jnp.float32)
    logit, error = 20.0 * jnp.sign(image - 0.5), jnp.full_like(image, log_error)
    return Isolated(image, image / 4.0, logit, error)


def cost_of(found):
    return float(isolation_loss(found, TRUE, TRUE / 4.0, INSIDE))


TRUE = jnp.zeros((16, 16)).at[4:12, 4:12].set(20.0)
INSIDE = (TRUE > 0.0).astype(jnp.float32)


def test_the_loss_is_lowest_for_the_true_error_scale():
    costs = [cost_of(answer(TRUE + off)) for off in (0, 2, 5)]
    assert costs[0] < costs[1] < costs[2]
    wrong = 3.0
    foretold = np.linspace(-1.0, 3.0, 81)
    by_size = [cost_of(answer(TRUE + wrong, s)) for s in foretold]
    assert foretold[int(np.argmin(by_size))] == pytest.approx(np.log(wrong), abs=0.03)


def test_errors_are_means_inside_the_true_mask():
    found = answer(TRUE.at[4:8].add(4.0).at[0, 0].set(100.0))
    error, nothing, dice = isolation_errors(found, TRUE, INSIDE)
    assert float(error) == pytest.approx(2.0)
    assert float(nothing) == pytest.approx(20.0)
    marked = int((np.asarray(found.mask_logit) > 0).sum())
    assert float(dice) == pytest.approx(2 * 64 / (64 + marked))


def test_undisturbed_estimates_lie_between_mean_and_true_shape():
    model, still = scenes.model(), EstimateErrors(0.0, 0.0, 0.0)
    mean = posed(model, scenes.TRUE_POSE, jnp.zeros(15))
    true = posed(model, scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS)
    guess = disturbed_surface(
        model, scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS, still, key=jax.random.key(3)
    )
    way = (guess - mean) / jnp.where(jnp.abs(true - mean) > 0.05, true - mean, jnp.nan)
    share = np.nanmedian(way)
    assert 0.0 < share < 1.0
    np.testing.assert_allclose(guess, mean + share * (true - mean), atol=1e-3)


@pytest.mark.slow
def test_hints_are_renderings_that_are_randomly_omitted():
    seen = scenes.observations(0.0)
    view, faces = jax.tree.map(lambda leaf: leaf[0], seen.cameras), scenes.model().faces
    guess = posed(scenes.model(), scenes.TRUE_POSE, jnp.zeros(15))
    make = jax.jit(lambda key: isolation_hint(seen.masks[0], guess, faces, view, key=key))
    hints = [make(key) for key in jax.random.split(jax.random.key(0), 60)]
    no_mask = [not np.asarray(h.mask).any() for h in hints]
    no_guess = [not np.asarray(h.silhouette).any() for h in hints]
    assert 20 <= sum(no_mask) <= 40 and 2 <= sum(no_guess) <= 20
    shown = hints[no_guess.index(False)]
    expected = splat(guess, faces, view, ISOLATION_SPLATS)
    np.testing.assert_allclose(shown.thickness, expected.thickness, rtol=1e-4, atol=1e-3)


@pytest.fixture(scope="module")
def isolated():
    """Isolate by an untrained network, which returns the initial estimate."""
    net, seen = IsolationNet(ISOLATION_PRESETS["smoke"]), scenes.observations(-30.0, 50.0)
    image = seen.images[0]
    params = jax.jit(net.init)(jax.random.key(0), image, no_hint(image))["params"]
    model, pose, shape = scenes.model(), scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS
    found = jax.jit(lambda p, s: isolate_vertebra(net, p, model, s, pose, shape))(params, seen)
    return seen, found


@pytest.mark.slow
def test_every_view_is_isolated_with_its_own_hint(isolated):
    seen, found = isolated
    assert found.thickness.shape == seen.images.shape
    # The scene contains only the vertebra: its images equal renders of the true shape.
    images = np.asarray(isolated_observations(seen, found).images)
    np.testing.assert_allclose(images, seen.images, atol=0.02 * float(seen.images.max()))
    view = jax.tree.map(lambda leaf: leaf[1], seen.cameras)
    true = posed(scenes.model(), scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS)
    expected = two_compartment(splat(true, scenes.model().faces, view, ISOLATION_SPLATS))
    np.testing.assert_allclose(images[1], jnp.maximum(expected, 0.0), rtol=1e-3, atol=1e-4)
