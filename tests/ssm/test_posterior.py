"""Posterior models: against dense Gaussian conditioning, and completing a hidden arch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, ssm, transforms
from dartjax.ssm._surface_fit import sample_surface


@pytest.fixture(scope="module")
def model():
    return ssm.truncate(data.load_shape_model("T9"), 10)


def deviation(model):
    """Standard deviation of every coordinate, mm."""
    return np.sqrt(np.sum(np.asarray(model.modes, float) ** 2, axis=0))


def seen_landmarks(model, seed=0):
    truth = ssm.sample(model, jax.random.key(seed))
    return ssm.landmarks(model, truth), truth


def test_it_is_dense_gaussian_conditioning(model):
    """K - K C^T (C K C^T + N)^-1 C K over the coordinates of the landmarks and 50 vertices."""
    observed, _ = seen_landmarks(model)
    noise = np.linspace(0.3, 2.0, 10)
    found = ssm.posterior(model, model.landmark_points, observed, jnp.asarray(noise, jnp.float32))

    def coordinates(shape):
        points = jnp.concatenate([ssm.landmarks(model, shape), shape[::41]])
        return np.asarray(points, float).reshape(-1)

    modes = np.stack([coordinates(mode) for mode in model.modes])
    mean, prior = coordinates(model.mean_shape), modes.T @ modes
    seen = slice(0, 30)
    gain = prior[:, seen] @ np.linalg.inv(prior[seen, seen] + np.diag(np.repeat(noise**2, 3)))
    offset = np.asarray(observed, float).reshape(-1) - mean[seen]
    np.testing.assert_allclose(coordinates(found.mean_shape), mean + gain @ offset, atol=1e-3)
    new = np.stack([coordinates(mode) for mode in found.modes])
    np.testing.assert_allclose(new.T @ new, prior - gain @ prior[seen], atol=2e-3)


def test_modes_are_sorted_principal_axes(model):
    found = ssm.posterior(model, model.landmark_points, seen_landmarks(model)[0], 0.5)
    old, new = (np.asarray(m.modes, float).reshape(10, -1) for m in (model, found))
    axes = np.linalg.lstsq(old.T, new.T, rcond=None)[0].T
    gram = axes @ axes.T
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-3)
    assert (np.diff(np.diag(gram)) <= 1e-4).all() and gram[0, 0] <= 1.001


def test_observation_lowers_the_variance_everywhere(model):
    vertices = jnp.array([5, 700, 1500])
    truth = seen_landmarks(model, 3)[1]
    found = ssm.posterior(model, ssm.vertex_points(vertices), truth[vertices], 0.4)
    before, after = deviation(model), deviation(found)
    assert (after <= before + 1e-3).all()
    assert (after[vertices] <= 0.4).all()
    assert np.mean(after) < 0.8 * np.mean(before)


def test_without_observation_it_is_the_prior(model):
    observed = jnp.full((10, 3), jnp.nan)
    found = ssm.posterior(model, model.landmark_points, observed, jnp.inf)
    np.testing.assert_allclose(found.mean_shape, model.mean_shape, atol=1e-4)
    np.testing.assert_allclose(deviation(found), deviation(model), atol=1e-3)


def test_it_batches(model):
    observed = jnp.stack([seen_landmarks(model, seed)[0] for seed in (1, 2)])
    noise = jnp.array([0.5, 2.0])
    condition = jax.jit(lambda y, s: ssm.posterior(model, model.landmark_points, y, s))
    both = jax.vmap(condition)(observed, noise)
    for i in range(2):
        alone = condition(observed[i], noise[i])
        np.testing.assert_allclose(both.mean_shape[i], alone.mean_shape, atol=1e-3)
        batched = jax.tree.map(lambda leaf, i=i: leaf[i], both)
        np.testing.assert_allclose(deviation(batched), deviation(alone), atol=1e-3)


@pytest.mark.slow
def test_the_body_predicts_the_hidden_arch(model):
    """Two cases in a batch; the mean is aligned to the body first."""
    body = np.asarray(model.parts) == 0
    faces = np.asarray(model.faces)
    faces = faces[body[faces].all(1)]
    pose = transforms.SE3.exp(jnp.array([4.0, -60.0, 250.0, 0.15, -0.05, 0.08]))
    start = transforms.perturb(pose, jnp.array([0.1, -0.1, 0.08]), jnp.array([3.0, -3.0, 4.0]))
    truths = [transforms.apply(pose, ssm.sample(model, jax.random.key(seed))) for seed in (11, 12)]
    seen = [sample_surface(np.asarray(truth, float), faces, 1000, seed=0) for truth in truths]
    points, normals = (jnp.asarray(np.stack(leaf), jnp.float32) for leaf in zip(*seen, strict=True))
    fit = jax.vmap(lambda p, n: ssm.posterior_from_surface(model, p, n, start))
    poses, found = fit(points, normals)
    for i, truth in enumerate(truths):
        placed = transforms.align_points(model.mean_shape[body], truth[body])
        completed = jax.vmap(transforms.apply)(poses, found.mean_shape)[i]
        mean = transforms.apply(placed, model.mean_shape)
        error, of_mean = (np.linalg.norm(v - truth, axis=1) for v in (completed, mean))
        assert error[body].mean() < 0.2
        assert error[~body].mean() < 0.5 * of_mean[~body].mean()
        # What was not seen stays the less certain.
        sd = deviation(jax.tree.map(lambda leaf, i=i: leaf[i], found))
        assert sd[~body].mean() > 2.0 * sd[body].mean()
        assert (sd <= deviation(model) + 1e-3).all()
