"""Subpixel sampling of grey values, and subpixel edges in profiles."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._types import Image, Scalar


def sample(
    image: Image, u: Float[Array, "*points"], v: Float[Array, "*points"]
) -> Float[Array, "*points"]:
    """Interpolate grey values at pixels (u, v) bilinearly, pixel centres at +0.5.

    Outside the image the value at the border is returned.
    """
    height, width = image.shape
    x, y = jnp.clip(u - 0.5, 0.0, width - 1.001), jnp.clip(v - 0.5, 0.0, height - 1.001)
    column, row = jnp.floor(x), jnp.floor(y)
    right, below = x - column, y - row
    base = row.astype(int) * width + column.astype(int)
    flat = image.reshape(-1)

    def at(shift: int) -> Float[Array, "*points"]:
        return jnp.take(flat, base + shift, mode="clip")

    upper = at(0) * (1.0 - right) + at(1) * right
    lower = at(width) * (1.0 - right) + at(width + 1) * right
    return upper * (1.0 - below) + lower * below


def steepest_rise(
    profiles: Float[Array, "ray sample"], step: Scalar | float
) -> tuple[Float[Array, " ray"], Float[Array, " ray"]]:
    """Find the steepest rise of every profile.

    Returns its distance from the first sample in the unit of `step` (the spacing of the samples),
    interpolated by a parabola, and the slope there.
    """
    slope = profiles[:, 2:] - profiles[:, :-2]  # at samples 1 to n - 2
    best = jnp.clip(jnp.argmax(slope, axis=1), 1, slope.shape[1] - 2)
    rows = jnp.arange(slope.shape[0])
    before, here, after = (slope[rows, best + k] for k in (-1, 0, 1))
    bend = before - 2.0 * here + after
    shift = jnp.where(bend < 0.0, 0.5 * (before - after) / jnp.where(bend < 0.0, bend, 1.0), 0.0)
    return (best + 1 + jnp.clip(shift, -0.5, 0.5)) * step, here / (2.0 * step)
