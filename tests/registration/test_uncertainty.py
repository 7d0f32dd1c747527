"""Covariances against simulation, in a linear problem and on rendered vertebrae."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, ssm, transforms
from dartjax.observations import Observations
from dartjax.registration import (
    best_next_view,
    calibrated_inflation,
    crop_cameras,
    fit_gauss_newton,
    interval_coverage,
    laplace,
    normal_std,
)
from dartjax.registration._curvature import block_sums
from dartjax.registration._uncertainty import sandwich
from dartjax.render import SplatOptions, splat, two_compartment
from tests.registration import scenes

NUM_MODES = 5
NUM_CASES = 16


@functools.cache
def model():
    return ssm.truncate(scenes.model(), NUM_MODES)


def crops():
    center = scenes.TRUE_POSE.apply(jnp.mean(model().mean_shape, axis=0))
    views = crop_cameras(
        scenes.views(-30.0, 50.0), center, width_mm=scenes.WIDTH_MM, num_pixels=scenes.PIXELS
    )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *views)


@jax.jit
def random_case(views, key):
    """A vertebra of the model's population, seen with white noise of 0.3 image standard
    deviations and 3 mm on every landmark; a disturbed start; the true vertices."""
    shape, noise, on_landmarks, turn, shift = jax.random.split(key, 5)
    truth = ssm.posed(model(), scenes.TRUE_POSE, jax.random.normal(shape, (NUM_MODES,)))
    channels = jax.vmap(lambda c: splat(truth, model().faces, c, SplatOptions(window=9)))(views)
    images = jax.vmap(two_compartment)(channels)
    images += 0.3 * jnp.std(images) * jax.random.normal(noise, images.shape)
    pixels = jax.vmap(lambda c: camera.project(c, ssm.landmarks(model(), truth)))(views)
    sigma_px = 3.0 * scenes.PIXELS / scenes.WIDTH_MM
    pixels += sigma_px * jax.random.normal(on_landmarks, pixels.shape)
    seen = Observations(
        cameras=views,
        images=images,
        exposed=jnp.ones_like(images),
        masks=channels.silhouette,
        landmarks=pixels,
        landmark_sigma=jnp.full(pixels.shape[:2], 3.0),
        view_valid=jnp.ones(2, bool),
    )
    turn, shift = 0.05 * jax.random.normal(turn, (3,)), 2.0 * jax.random.normal(shift, (3,))
    return seen, transforms.perturb(scenes.TRUE_POSE, turn, shift), truth


@jax.jit
def solve(seen, start):
    result = fit_gauss_newton(model(), seen, start, scenes.QUICK, num_steps=6)
    return result, laplace(model(), seen, result, scenes.QUICK, inflation=1.0)


@functools.cache
def solved():
    """(observations, result, uncertainty, true vertices) of every case."""
    cases = []
    for key in jax.random.split(jax.random.key(0), NUM_CASES):
        seen, start, truth = random_case(crops(), key)
        cases.append((seen, *solve(seen, start), truth))
    return cases


def on_axes(covariance):
    return np.sqrt(np.diagonal(np.asarray(covariance), axis1=-2, axis2=-1))


def test_sandwich_covers_in_a_linear_problem_with_wrong_weights():
    """y = A x + noise of two standard deviations, fitted with equal weights: the errors of the
    least squares lie in 90 % intervals made from the residuals of blocks."""
    rng = np.random.default_rng(0)
    num_unknowns, num_cases, side = 4, 400, 32
    slopes = rng.normal(size=(num_unknowns, side, side))
    sigma = np.where(np.arange(side) < side // 2, 0.5, 2.0)[None, :] * np.ones((side, 1))
    flat = slopes.reshape(num_unknowns, -1)
    curvature = flat @ flat.T
    noise = rng.normal(size=(num_cases, side, side)) * sigma[None]
    errors = np.linalg.solve(curvature, flat @ noise.reshape(num_cases, -1).T).T
    residuals = np.einsum("cn,nhw->chw", errors, slopes) - noise

    @jax.jit
    @jax.vmap
    def standard_deviations(residual):
        shares = block_sums(jnp.asarray(slopes, jnp.float32) * residual[None])
        covariance = sandwich(jnp.asarray(curvature, jnp.float32), shares @ shares.T)
        return jnp.sqrt(jnp.diag(covariance))

    found = standard_deviations(jnp.asarray(residuals, jnp.float32))
    assert 0.86 < interval_coverage(errors, np.asarray(found)) < 0.93
    inverse = np.linalg.inv(curvature)
    exact = inverse @ ((flat * sigma.reshape(1, -1) ** 2) @ flat.T) @ inverse
    typical = np.sqrt(np.mean(np.asarray(found) ** 2, axis=0))
    np.testing.assert_allclose(typical, np.sqrt(np.diag(exact)), rtol=0.1)


@pytest.mark.slow
def test_intervals_cover_the_vertices_of_rendered_vertebrae():
    errors, stds, path_errors, path_stds = [], [], [], []
    for _, result, uncertainty, truth in solved():
        fitted = ssm.posed(model(), result.pose, result.coefficients)
        errors.append(np.asarray(fitted - truth))
        stds.append(on_axes(uncertainty.vertices))
        path_errors.append((ssm.paths(model(), fitted) - ssm.paths(model(), truth)).reshape(2, 6))
        path_stds.append(on_axes(uncertainty.paths))
    assert 0.85 < interval_coverage(np.stack(errors), np.stack(stds)) < 0.95
    # Twelve correlated numbers a case: a wider interval for chance.
    assert 0.80 < interval_coverage(np.stack(path_errors), np.stack(path_stds)) < 0.97


@pytest.mark.slow
def test_covariances_are_those_of_samples():
    _, result, uncertainty, _ = solved()[0]
    deviates = np.random.default_rng(0).multivariate_normal(
        np.zeros(6 + NUM_MODES), np.asarray(uncertainty.covariance, float), size=3000
    )

    @jax.jit
    @jax.vmap
    def move(step):
        pose = transforms.perturb(result.pose, step[:3], step[3:6])
        vertices = ssm.posed(model(), pose, result.coefficients + step[6:])
        return vertices[::100], ssm.landmarks(model(), vertices), ssm.paths(model(), vertices)

    vertices, landmarks, paths = (np.asarray(x) for x in move(jnp.asarray(deviates, jnp.float32)))
    rms = np.sqrt(np.mean(vertices.var(axis=0), axis=-1))
    np.testing.assert_allclose(uncertainty.vertex_std[::100], rms, rtol=0.05)
    rms = np.sqrt(np.mean(landmarks.var(axis=0), axis=-1))
    np.testing.assert_allclose(uncertainty.landmark_std, rms, rtol=0.05)
    expected = np.cov(paths[:, 1].reshape(-1, 6).T)
    np.testing.assert_allclose(uncertainty.paths[1], expected, atol=0.06 * expected.max())
    rms = np.sqrt(np.mean(paths.var(axis=0), axis=-1))
    np.testing.assert_allclose(uncertainty.path_std, rms, rtol=0.05)


@pytest.mark.slow
def test_one_view_is_less_certain_and_most_so_in_depth():
    seen, result, both, _ = solved()[0]
    only = dataclasses.replace(seen, view_valid=jnp.array([True, False]))
    _, one = solve(only, result.pose)
    assert np.all(np.asarray(one.path_std) > 1.2 * np.asarray(both.path_std))
    beam = np.asarray(seen.cameras.camera_from_world.rotation().as_matrix()[0, 2])
    values, axes = np.linalg.eigh(np.asarray(one.covariance)[3:6, 3:6])
    assert abs(axes[:, -1] @ beam) > 0.95
    assert values[-1] > 4.0 * values[-2]


@pytest.mark.slow
def test_the_best_next_view_is_perpendicular():
    seen, result, _, _ = solved()[0]
    only = dataclasses.replace(seen, view_valid=jnp.array([True, False]))
    angles = (-30.0, -10.0, 10.0, 50.0, 150.0)  # the first is the existing view
    candidates = jax.tree.map(lambda *leaves: jnp.stack(leaves), *scenes.views(*angles))
    found = jax.jit(lambda o, r, c: best_next_view(model(), o, r, scenes.QUICK, c, inflation=1.0))(
        only, result, candidates
    )
    assert angles[int(found.index)] == 50.0
    assert np.all(np.asarray(found.path_std) < float(found.path_std_now))
    nearly_parallel = found.path_std[jnp.array([0, 4])]
    assert float(found.path_std[3]) < 0.8 * float(jnp.min(nearly_parallel))
    # The prediction equals the result with the second view, at 50 degrees.
    _, both = solve(seen, result.pose)
    given = float(jnp.sqrt(jnp.mean(both.path_std**2)))
    assert float(found.path_std[3]) == pytest.approx(given, rel=0.35)


@pytest.mark.slow
def test_a_result_that_is_not_finite_gives_nan():
    seen, result, _, _ = solved()[0]
    broken = dataclasses.replace(seen, images=seen.images.at[0, 20, 20].set(jnp.nan))
    _, uncertainty = solve(broken, result.pose)
    assert not np.isfinite(np.asarray(uncertainty.vertex_std)).any()


def test_inflation_is_calibrated_to_cover():
    rng = np.random.default_rng(0)
    stds = rng.uniform(0.5, 2.0, (200, 3))
    errors = 1.7 * stds * rng.normal(size=stds.shape)
    factor = calibrated_inflation(errors, stds)
    assert factor == pytest.approx(1.7, rel=0.1)
    assert interval_coverage(errors, factor * stds) == pytest.approx(0.9, abs=0.01)
    with pytest.raises(ValueError, match="nothing to calibrate"):
        calibrated_inflation(np.full(3, np.nan), np.ones(3))


def test_standard_deviation_along_normals():
    covariance = jnp.diag(jnp.array([1.0, 4.0, 9.0]))[None]
    assert float(normal_std(covariance, jnp.array([[0.0, 1.0, 0.0]]))[0]) == pytest.approx(2.0)
