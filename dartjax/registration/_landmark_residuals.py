"""Residuals of a pose: reprojected landmarks with possible left/right swaps, centroids of masks,
and a robust kernel for outliers."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax import camera as cameras
from dartjax._types import Image, Points, Scalar
from dartjax.camera import Camera
from dartjax.observations import PARTNER


def robust(residual: Float[Array, "*n 2"], width: Scalar | float) -> Float[Array, "*n 2"]:
    """Scale a residual so that its square is s / (1 + s / width^2), with the squared length s
    (Geman-McClure kernel). A width of inf leaves it unchanged."""
    squared = jnp.sum(residual**2, axis=-1, keepdims=True)
    return residual / jnp.sqrt(1.0 + squared / width**2)


def exchangeable_residuals(
    view: Camera,
    points: Points,
    pixels: Float[Array, "n 2"],
    sigma: Float[Array, " n"],
    width: Scalar | float,
) -> tuple[Float[Array, "n 2"], Bool[Array, " n"]]:
    """Compute the reprojection errors of landmarks in one view, allowing left/right swaps.

    Returns in-plane mm over sigma (0 where sigma or the pixel is not finite: not seen), and which
    landmarks are taken as swapped: both of a pair are seen and the swap lowers their `robust`
    squares. A lateral view does not distinguish left from right.
    """
    partner, seen = jnp.asarray(PARTNER), jnp.isfinite(sigma) & jnp.isfinite(pixels).all(-1)
    pixels = jnp.where(seen[:, None], pixels, 0.0)
    scale = jnp.where(seen, 1.0 / jnp.where(seen, sigma, 1.0), 0.0)[:, None]
    direct = cameras.reprojection_mm(view, points, pixels) * scale
    other = cameras.reprojection_mm(view, points[partner], pixels) * scale
    cost, other_cost = (jnp.sum(robust(r, width) ** 2, axis=1) for r in (direct, other))
    exchanged = seen & seen[partner] & (other_cost + other_cost[partner] < cost + cost[partner])
    return jnp.where(exchanged[:, None], other, direct), exchanged


def centroid_of(mask: Image) -> tuple[Float[Array, "2"], Bool[Array, ""]]:
    """Compute the centroid of a soft mask in px, and whether the mask is not empty."""
    height, width = mask.shape
    across = jnp.sum(mask, axis=0) @ (jnp.arange(width) + 0.5)
    along = jnp.sum(mask, axis=1) @ (jnp.arange(height) + 0.5)
    total = jnp.sum(mask)
    return jnp.stack([across, along]) / jnp.maximum(total, 1e-6), total > 0.0
