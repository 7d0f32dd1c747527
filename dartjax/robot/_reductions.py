"""Smallest and largest values that keep NaN: on CPU, `jnp.min` and `jnp.max` may drop it."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._types import Scalar


def least(values: Float[Array, "..."]) -> Scalar:
    """Compute the smallest of all values; NaN if one of them is NaN."""
    return jnp.where(jnp.any(jnp.isnan(values)), jnp.nan, jnp.min(values))


def largest(values: Float[Array, "..."]) -> Scalar:
    """Compute the largest of all values; NaN if one of them is NaN."""
    return jnp.where(jnp.any(jnp.isnan(values)), jnp.nan, jnp.max(values))
