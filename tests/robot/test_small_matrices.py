"""Algebra of small matrices against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from dartjax._numerics import solve_positive
from dartjax.robot import _small_matrices
from tests.gradients import assert_gradient


def matrices(seed, n, count=50):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(count, n, n))
    return root, root @ root.transpose(0, 2, 1) + 1e-3 * np.eye(n)


def test_positive_systems(x64):
    for n in (4, 6, 21):
        _, M = matrices(n, n)
        right = np.random.default_rng(1).normal(size=(50, n, 3))
        found = jax.vmap(solve_positive)(jnp.asarray(M), jnp.asarray(right))
        np.testing.assert_allclose(found, np.linalg.solve(M, right), rtol=1e-7, atol=1e-7)


def test_smallest_eigenvector(x64):
    _, M = matrices(2, 3)
    values, vectors = np.linalg.eigh(M)
    found = np.asarray(jax.vmap(_small_matrices.smallest_eigenvector)(jnp.asarray(M)))
    along = np.abs(np.sum(found * vectors[:, :, 0], axis=1))
    clear = values[:, 0] < 0.5 * values[:, 1]
    assert clear.sum() > 30
    np.testing.assert_allclose(along[clear], 1.0, atol=1e-8)


def test_nearest_rotation(x64):
    M, _ = matrices(3, 3)
    M = M * np.sign(np.linalg.det(M))[:, None, None]
    u, _, vt = np.linalg.svd(M)
    found = np.asarray(jax.vmap(_small_matrices.nearest_rotation)(jnp.asarray(M)))
    np.testing.assert_allclose(found, u @ vt, atol=1e-6)
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
    assert_gradient(
        lambda m: jnp.sum(weight * _small_matrices.nearest_rotation(m)), jnp.asarray(M[0])
    )
