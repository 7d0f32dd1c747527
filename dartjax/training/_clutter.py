"""Data augmentation by clutter: the crop of another vertebra, or person, added to a radiograph."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

_SHARE = 0.5
_MOST = 0.8


def with_clutter(images: Float[Array, "n h w"], *, key: PRNGKeyArray) -> Float[Array, "n h w"]:
    """Add to half of the images another image of the batch: above its least value, with a weight
    from 0 to 0.8, mirrored at random in both directions.

    Line integrals add, so this is the radiograph of both bodies behind each other."""
    n = len(images)
    order, chance, weights, flips = jax.random.split(key, 4)
    # Each image is paired with the next one of a random order, never with itself.
    places = jax.random.permutation(order, n)
    other = images[jnp.zeros(n, int).at[places].set(jnp.roll(places, 1))]
    other = other - jnp.min(other, axis=(1, 2), keepdims=True)
    mirrored = jax.random.bernoulli(flips, 0.5, (2, n, 1, 1))
    other = jnp.where(mirrored[0], other[:, :, ::-1], other)
    other = jnp.where(mirrored[1], other[:, ::-1], other)
    added = jax.random.bernoulli(chance, _SHARE, (n,))
    weight = jnp.where(added, _MOST * jax.random.uniform(weights, (n,)), 0.0)
    return images + weight[:, None, None] * other
