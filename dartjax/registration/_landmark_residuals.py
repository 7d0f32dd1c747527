"""What detections say of a pose: reprojected landmarks that may be exchanged left for right, and
the centroids of masks, held against gross errors."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax import camera as cameras
from dartjax._types import Image, Points, Scalar
from dartjax.camera import Camera
from dartjax.observations import PARTNER


def robust(residual: Float[Array, "*n 2"], width: Scalar | float) -> Float[Array, "*n 2"]:
    """Scaled so that its square is s / (1 + s / width^2), s the squared length (Geman-McClure);
    unchanged with width inf."""
    squared = jnp.sum(residual**2, axis=-1, keepdims=True)
    return residual / jnp.sqrt(1.0 + squared / width**2)


def exchangeable_residuals(
    view: Camera,
    points: Points,
    pixels: Float[Array, "n 2"],
    sigma: Float[Array, " n"],
    width: Scalar | float,
) -> tuple[Float[Array, "n 2"], Bool[Array, " n"]]:
    """Reprojected landmarks of one view: in-plane mm over sigma (0 where sigma is inf: not seen),
    and which of them are taken as exchanged: where both of a pair are seen and fit better so by
    their `robust` squares. On a lateral view left and right cannot be told apart."""
    partner, seen = jnp.asarray(PARTNER), jnp.isfinite(sigma)
    scale = jnp.where(seen, 1.0 / jnp.where(seen, sigma, 1.0), 0.0)[:, None]
    direct = cameras.reprojection_mm(view, points, pixels) * scale
    other = cameras.reprojection_mm(view, points[partner], pixels) * scale
    cost, other_cost = (jnp.sum(robust(r, width) ** 2, axis=1) for r in (direct, other))
    exchanged = seen & seen[partner] & (other_cost + other_cost[partner] < cost + cost[partner])
    return jnp.where(exchanged[:, None], other, direct), exchanged


def centroid_of(mask: Image) -> tuple[Float[Array, "2"], Bool[Array, ""]]:
    """Centroid of a soft mask in px, and whether there is anything in it."""
    height, width = mask.shape
    across = jnp.sum(mask, axis=0) @ (jnp.arange(width) + 0.5)
    along = jnp.sum(mask, axis=1) @ (jnp.arange(height) + 0.5)
    total = jnp.sum(mask)
    return jnp.stack([across, along]) / jnp.maximum(total, 1e-6), total > 0.0
