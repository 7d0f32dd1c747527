"""Triangulation: points from their projections in several views."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dartjax import camera as cameras
from dartjax._numerics import safe_norm
from dartjax._types import Point, Points, Scalar
from dartjax.camera import Camera

# Weak prior on the depth of a point: this share of the source-to-detector distance.
DEPTH_SHARE, DEPTH_SIGMA_MM = 0.6, 150.0


class Triangulated(eqx.Module):
    """Triangulated points in world mm, the number of views of each, and the residual of its
    rays."""

    points: Points
    num_views: Int[Array, " n"]
    residual_mm: Float[Array, " n"]  # rms in-plane distance at the point's depth


def viewing_rays(view: Camera, pixels: Float[Array, "n 2"]) -> Points:
    """Compute the unit directions (world) of the rays from the source through pixels."""
    through = cameras.back_project(view, pixels, jnp.ones(len(pixels)))
    away = through - view.source[None]
    return away / jnp.linalg.norm(away, axis=1, keepdims=True)


def triangulate(
    views: Camera,
    pixels: Float[Array, "view n 2"],
    sigma_mm: Float[Array, "view n"],
    *,
    num_steps: int = 3,
) -> Triangulated:
    """Triangulate points from their pixels in K views (leading view axis of `views`).

    The initial estimate is the point nearest to all rays, weighted by 1 / sigma^2 (the linear form
    of the problem in mm); Gauss-Newton on the reprojection error, in mm at the point's depth,
    refines it. A pixel that is not finite, or has `sigma_mm` = inf, is not seen. A point seen in
    one view gets a depth of about 0.6 sdd along its ray; the position of a point seen in no view is
    arbitrary: read `num_views`.
    """
    seen = jnp.isfinite(sigma_mm) & jnp.isfinite(pixels).all(-1)
    pixels = jnp.where(seen[..., None], pixels, views.principal_point[:, None])
    weights = jnp.where(seen, 1.0 / jnp.where(seen, sigma_mm, 1.0) ** 2, 0.0)
    directions = jax.vmap(viewing_rays)(views, pixels)
    sources = jax.vmap(lambda view: view.source)(views)

    def one(pixel: Float[Array, "view 2"], direction: Points, weight: Float[Array, " view"]):
        start = nearest_to_rays(views, sources, direction, weight)
        point = _reprojection_steps(views, pixel, weight, start, num_steps)
        residual = jnp.where(weight[:, None] > 0.0, _in_plane(views, point, pixel), 0.0)
        count = jnp.maximum(2.0 * jnp.sum(weight > 0.0), 1.0)
        return point, safe_norm(residual.reshape(-1)) / jnp.sqrt(count)

    points, residual = jax.vmap(one, in_axes=(1, 1, 1))(pixels, directions, weights)
    return Triangulated(points, jnp.sum(seen, axis=0), residual)


def nearest_to_rays(
    views: Camera,
    origins: Points,
    directions: Points,
    weights: Float[Array, " n"],
) -> Point:
    """Find the point with the least weighted sum of squared distances to rays. A weak prior at the
    usual depth of the views makes the point unique for parallel rays."""
    across = jnp.eye(3)[None] - directions[:, :, None] * directions[:, None, :]
    middle = jnp.mean(jax.vmap(lambda v: v.source + DEPTH_SHARE * v.sdd * v.beam)(views), axis=0)
    hold = 1.0 / DEPTH_SIGMA_MM**2
    matrix = jnp.einsum("n,nij->ij", weights, across) + hold * jnp.eye(3)
    right = jnp.einsum("n,nij,nj->i", weights, across, origins) + hold * middle
    return jnp.linalg.solve(matrix, right)


def _reprojection_steps(
    views: Camera,
    pixel: Float[Array, "view 2"],
    weight: Float[Array, " view"],
    start: Point,
    num_steps: int,
) -> Point:
    counts = weight > 0.0
    root = jnp.where(counts, jnp.sqrt(jnp.where(counts, weight, 1.0)), 0.0)[:, None]

    def residual(point: Point) -> Float[Array, " m"]:
        return (root * _in_plane(views, point, pixel)).reshape(-1)

    def step(point: Point, _):
        r, jacobian = residual(point), jax.jacfwd(residual)(point)
        # A depth that no view determines is left unchanged.
        normal = jacobian.T @ jacobian + 1e-6 * jnp.eye(3)
        return point - jnp.linalg.solve(normal, jacobian.T @ r), None

    return jax.lax.scan(step, start, length=num_steps)[0]


def _in_plane(views: Camera, point: Point, pixels: Float[Array, "view 2"]) -> Float[Array, "k 2"]:
    """Compute the reprojection error in mm at the point's depth, per view."""

    def one(view: Camera, pixel: Float[Array, "2"]) -> Float[Array, "2"]:
        return cameras.reprojection_mm(view, point[None], pixel[None])[0]

    return jax.vmap(one)(views, pixels)


def ray_angle(views: Camera, weights: Float[Array, " view"]) -> Scalar:
    """Compute the largest angle between the central beams, as lines, of two views with a weight
    above 0, rad in [0, pi/2]."""
    beams = jax.vmap(lambda view: view.beam)(views)
    sine = safe_norm(jnp.cross(beams[:, None], beams[None]))
    both = (weights[:, None] > 0.0) & (weights[None] > 0.0)
    return jnp.arcsin(jnp.clip(jnp.max(jnp.where(both, sine, 0.0)), 0.0, 1.0))
