"""The quadratic of the objective against autodiff and explicit residuals, and the fit."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import ssm
from dartjax.registration import STATUS_MEANING, ObjectiveWeights, fit_gauss_newton, objective
from dartjax.registration._curvature import (
    block_sums,
    expand,
    overlap_curvature,
    parameters_of,
    self_curvature,
)
from dartjax.registration._fit import prepare
from dartjax.registration._gauss_newton import Quadratic, damped_gauss_newton
from dartjax.registration._objective import zero_parameters
from dartjax.render import gradient_ncc, local_gradient_ncc, mutual_information, ncc, patch_ncc
from tests.registration import scenes

NUM_MODES = 5
NUM_STEPS = 5


@functools.cache
def small_model():
    return ssm.truncate(scenes.model(), NUM_MODES)


quick_fit = jax.jit(
    lambda seen, start: fit_gauss_newton(
        small_model(), seen, start, scenes.QUICK, num_steps=NUM_STEPS
    )
)


def smooth_images():
    rng = np.random.default_rng(0)
    image, mask, *tangents = np.cumsum(rng.normal(size=(6, 16, 16)), axis=2)
    weights = rng.uniform(0.2, 1.0, (16, 16))
    return tuple(jnp.asarray(x) for x in (image, mask, weights, np.stack(tangents)))


def curvature_of(similarity):
    return jax.jit(functools.partial(self_curvature, similarity))


def residual_curvature(residual, image, tangents):
    """J' J of an explicit residual of the image."""
    push = jax.jit(jax.vmap(lambda tangent: jax.jvp(residual, (image,), (tangent,))[1]))
    slopes = np.asarray(push(tangents)).reshape(len(tangents), -1)
    return slopes @ slopes.T


def test_curvature_of_ncc_is_that_of_its_normalised_residual(x64):
    image, other, weights, tangents = smooth_images()

    def normalised(x):
        x = x - jnp.sum(weights * x) / jnp.sum(weights)
        return jnp.sqrt(weights) * x / jnp.sqrt(jnp.sum(weights * x**2))

    half_square = 0.5 * jnp.sum((normalised(image) - normalised(other)) ** 2)
    assert float(half_square) == pytest.approx(1.0 - float(ncc(image, other, weights)), abs=1e-12)
    expected = residual_curvature(normalised, image, tangents)
    np.testing.assert_allclose(curvature_of(ncc)(image, weights, tangents), expected, rtol=1e-8)


def test_curvature_of_patch_ncc_is_that_of_its_windows_residuals(x64):
    image, _, weights, tangents = smooth_images()

    def windows(x):
        padded = jnp.pad(x, 2)
        return jnp.stack([padded[i : i + 16, j : j + 16] for i in range(5) for j in range(5)])

    def normalised(x):
        parts, mass = windows(x), windows(weights)
        mass = mass / jnp.sum(mass, axis=0)[None]
        parts = parts - jnp.sum(mass * parts, axis=0)[None]
        length = jnp.sqrt(jnp.sum(mass * parts**2, axis=0))
        share = jnp.sqrt(weights / jnp.sum(weights)) / length
        return jnp.sqrt(mass) * parts * share[None]

    similarity = functools.partial(patch_ncc, window=5, eps=1e-12)
    expected = residual_curvature(normalised, image, tangents)
    found = curvature_of(similarity)(image, weights, tangents)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "similarity", [gradient_ncc, local_gradient_ncc, mutual_information], ids=lambda f: f.__name__
)
def test_curvatures_of_similarities_are_not_negative(x64, similarity):
    image, _, weights, tangents = smooth_images()
    values = np.linalg.eigvalsh(curvature_of(similarity)(image, weights, tangents))
    assert values[0] > -1e-9
    assert values[-1] > 0.0


def test_curvature_of_dice_is_that_of_its_residual(x64):
    image, mask, _, tangents = smooth_images()
    size = jnp.sum(image**2) + jnp.sum(mask**2)
    expected = residual_curvature(lambda x: jnp.sqrt(2.0 / size) * (x - mask), image, tangents)
    found = overlap_curvature(image, mask, tangents)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_blocks_add_up_to_the_image():
    images = jnp.asarray(np.random.default_rng(1).normal(size=(3, 16, 24)))
    sums = np.asarray(block_sums(images)).reshape(3, 8, 8)
    np.testing.assert_allclose(sums[:, 2, 5], images[:, 4:6, 15:18].sum((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(
        block_sums(images[:, :13, :17]).sum(1), images[:, :13, :17].sum((1, 2)), atol=1e-4
    )


@pytest.mark.slow
def test_the_quadratic_is_that_of_the_objective():
    seen, start, model = scenes.observations(-30.0, 50.0), scenes.disturbed_start(), small_model()
    seen = dataclasses.replace(seen, landmarks=seen.landmarks.at[0, 3].add(20.0))
    similarity, scale = scenes.QUICK.similarity[0], scenes.QUICK.scales[0]
    evidence, splats = prepare(model, start, zero_parameters(NUM_MODES), seen, scale, scenes.QUICK)
    evidence = dataclasses.replace(evidence, shape=jnp.linspace(-1.0, 1.0, NUM_MODES))

    @jax.jit
    def both(x):
        expansion = expand(x, model, start, evidence, similarity, ObjectiveWeights(), splats)
        plain = jax.value_and_grad(
            lambda y: objective(
                parameters_of(y), model, start, evidence, similarity, ObjectiveWeights(), splats
            )
        )(x)
        return expansion, plain

    rng = np.random.default_rng(3)
    x = jnp.asarray(0.5 * rng.normal(size=6 + NUM_MODES), jnp.float32)
    expansion, (loss, gradient) = both(x)
    quadratic = expansion.quadratic
    assert float(quadratic.loss) == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(quadratic.gradient, gradient, atol=2e-4 * np.abs(gradient).max())
    for matrix in (quadratic.curvature, expansion.noise):
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-5 * np.abs(matrix).max())
        assert np.linalg.eigvalsh(np.asarray(matrix, float))[0] > -1e-6 * np.abs(matrix).max()


def test_damped_gauss_newton_on_rosenbrock(x64):
    def near(x):
        residual = jnp.array([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])
        slope = jnp.array([[-20.0 * x[0], 10.0], [-1.0, 0.0]])
        return Quadratic(0.5 * jnp.sum(residual**2), slope.T @ residual, slope.T @ slope)

    found, history = damped_gauss_newton(near, jnp.array([-1.2, 1.0]), num_steps=60)
    np.testing.assert_allclose(found, [1.0, 1.0], atol=1e-8)
    assert float(history[0]) == pytest.approx(0.5 * (4.4**2 + 2.2**2))
    assert np.all(np.diff(history) <= 0.0)


@pytest.mark.slow
def test_fit_recovers_pose_and_shape_in_few_renderings():
    seen = scenes.observations(-30.0, 50.0)
    result = quick_fit(seen, scenes.disturbed_start())
    coefficients = jnp.zeros(15).at[:NUM_MODES].set(result.coefficients)
    assert scenes.mean_vertex_error(result.pose, coefficients) < 0.6
    assert STATUS_MEANING[int(result.status)] == "converged"
    assert result.history.shape == (NUM_STEPS + 1,)
    assert np.all(np.diff(result.history) <= 0.0)


@pytest.mark.slow
def test_fit_with_images_alone():
    seen = scenes.observations(-30.0, 50.0, landmarks=False, masks=False)
    result = quick_fit(seen, scenes.disturbed_start())
    coefficients = jnp.zeros(15).at[:NUM_MODES].set(result.coefficients)
    assert scenes.mean_vertex_error(result.pose, coefficients) < 1.0


@pytest.mark.slow
def test_an_invalid_view_has_no_effect():
    seen = scenes.observations(-30.0, 50.0)
    only = dataclasses.replace(seen, view_valid=jnp.array([True, False]))
    garbage = dataclasses.replace(only, images=only.images.at[1].set(jnp.nan))
    first = quick_fit(only, scenes.disturbed_start())
    second = quick_fit(garbage, scenes.disturbed_start())
    assert np.isfinite(first.loss)
    np.testing.assert_allclose(first.coefficients, second.coefficients, atol=1e-4)


@pytest.mark.slow
def test_pixels_that_are_not_finite_give_a_status_not_an_error():
    seen = scenes.observations(-30.0, 50.0)
    broken = dataclasses.replace(seen, images=seen.images.at[0, 30, 30].set(jnp.nan))
    result = quick_fit(broken, scenes.disturbed_start())
    assert "not finite" in STATUS_MEANING[int(result.status)]
