"""Gradients against finite differences. Use with the `x64` fixture."""

import jax
import jax.numpy as jnp
import numpy as np


def assert_gradient(function, x, *, step=1e-5, rtol=1e-6, atol=1e-9, seed=0):
    """The derivative of a scalar function along three random directions is that of central
    differences. `x` is one float64 array."""
    x = jnp.asarray(x, jnp.float64)
    function = jax.jit(jax.value_and_grad(function))  # one compilation for both
    gradient = np.asarray(function(x)[1])
    assert np.isfinite(gradient).all()
    rng = np.random.default_rng(seed)
    for _ in range(3):
        direction = rng.standard_normal(x.shape)
        direction /= np.linalg.norm(direction)
        ahead, behind = (float(function(x + sign * step * direction)[0]) for sign in (1.0, -1.0))
        expected = (ahead - behind) / (2.0 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), expected, rtol=rtol, atol=atol)
