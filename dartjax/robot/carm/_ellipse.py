"""Ellipses fitted to edge points of a hole: convex-hull fit and RANSAC fit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._least_squares import levenberg_marquardt
from dartjax._types import Matrix3, Pixels
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot.carm._homography import counted_points

NUM_DIRECTIONS = 128  # of the convex hull: a hull point is the furthest in one of them
_SAMPLES = 96  # of five points, for RANSAC
_CONSENSUS_PX = 0.5
MIN_HULL, MIN_AXIS_RATIO = 8, 0.5


class Ellipse(eqx.Module):
    """Ellipse (x - center)^T shape^-1 (x - center) = 1; the semi-axes are the square roots of the
    eigenvalues of `shape`."""

    center: Float[Array, "2"]
    shape: Float[Array, "2 2"]

    @property
    def semi_axes(self) -> Float[Array, "2"]:
        """Lengths of the semi-axes, shorter first."""
        return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(self.shape), 0.0))

    @property
    def aspect(self) -> Array:
        """Shorter over longer axis: for the image of a circle, the cosine of its tilt."""
        return self.semi_axes[0] / self.semi_axes[1]

    @property
    def conic(self) -> Matrix3:
        """Conic matrix Q: (x, y, 1) Q (x, y, 1)^T is 0 on the ellipse and negative inside."""
        inverse = jnp.linalg.inv(self.shape)
        linear = -inverse @ self.center
        constant = self.center @ inverse @ self.center - 1.0
        upper = jnp.concatenate([inverse, linear[:, None]], axis=1)
        return jnp.concatenate([upper, jnp.append(linear, constant)[None]])


def on_hull(points: Pixels, valid: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """Mark the points of the convex hull: the furthest in at least one of 128 directions.

    A false edge of a hole in an opaque nail lies inside the hole, so the hull excludes it.
    """
    angles = jnp.asarray(2.0 * np.pi * np.arange(NUM_DIRECTIONS) / NUM_DIRECTIONS)
    direction = jnp.stack([jnp.cos(angles), jnp.sin(angles)])
    points = counted_points(points, valid.astype(points.dtype))
    reach = jnp.where(valid[:, None], points @ direction, -jnp.inf)
    first = jnp.argmax(reach, axis=0)
    return jnp.zeros(len(points), bool).at[first].set(True) & valid


def fit_ellipse(points: Pixels, weight: Float[Array, " n"]) -> Ellipse:
    """Fit an ellipse to weighted points by minimising the squared Sampson distance.

    The initial estimate is the linear conic fit with trace 1, in normalised coordinates. At least
    5 points are needed. A conic that is not an ellipse gives NaN. Points of weight 0 may be NaN.
    """
    points = counted_points(points, weight)
    counts = weight != 0.0
    root = jnp.where(counts, jnp.sqrt(jnp.where(counts, weight, 1.0)), 0.0)
    total = jnp.maximum(jnp.sum(weight), 1e-9)
    mean = jnp.sum(weight[:, None] * points, axis=0) / total
    size = jnp.sqrt(jnp.sum(weight * jnp.sum((points - mean[None]) ** 2, axis=1)) / total + 1e-9)
    p = (points - mean[None]) / size
    x, y = p[:, 0], p[:, 1]
    design = jnp.stack([x**2 - y**2, x * y, x, y, jnp.ones_like(x)], axis=1)
    normal = design.T @ (weight[:, None] * design) + 1e-6 * jnp.eye(5)
    a, b, d, e, f = jnp.linalg.solve(normal, -design.T @ (weight * y**2))
    start = jnp.array([a, b, d, e, f])

    def residual(c: Float[Array, "5"]) -> Float[Array, " n"]:
        value = design @ c + y**2
        gx = 2.0 * c[0] * x + c[1] * y + c[2]
        gy = 2.0 * (1.0 - c[0]) * y + c[1] * x + c[3]
        return root * value / jnp.sqrt(gx**2 + gy**2 + 1e-9)

    a, b, d, e, f = levenberg_marquardt(residual, start, num_steps=8).x
    matrix = jnp.array([[a, 0.5 * b], [0.5 * b, 1.0 - a]])
    center = -0.5 * jnp.linalg.solve(matrix, jnp.array([d, e]))
    level = center @ matrix @ center - f
    return Ellipse(mean + size * center, size**2 * level * jnp.linalg.inv(matrix))


def ellipse_distance(ellipse: Ellipse, points: Pixels) -> Float[Array, " n"]:
    """Compute the signed Sampson distance of points from an ellipse, positive outside."""
    offset = points - ellipse.center[None]
    pulled = offset @ jnp.linalg.inv(ellipse.shape)
    value = jnp.sum(offset * pulled, axis=1) - 1.0
    return value / (2.0 * jnp.linalg.norm(pulled, axis=1) + 1e-9)


def hull_ellipse(points: Pixels, valid: Bool[Array, " n"]) -> tuple[Ellipse, Status]:
    """Fit an ellipse to the convex hull of edge points.

    Status DETECTION_FAILED for fewer than 8 hull points, a conic that is not an ellipse, or an axis
    ratio below 0.5.
    """
    hull = on_hull(points, valid)
    return _with_status(fit_ellipse(points, hull.astype(points.dtype)), jnp.sum(hull))


def consensus_ellipse(points: Pixels, valid: Bool[Array, " n"]) -> tuple[Ellipse, Status]:
    """Fit an ellipse by RANSAC: of 96 conics through five points, take the one with most points
    within half a pixel and refit it to those. Same status as `hull_ellipse`."""
    weight = valid.astype(points.dtype)
    points = counted_points(points, weight)

    def through(five: Array) -> Ellipse:
        chosen = jnp.zeros(len(points)).at[five].set(1.0) * weight
        return fit_ellipse(points, chosen)

    candidates = jax.vmap(through)(jnp.asarray(_random_samples(len(points))))

    def near(ellipse: Ellipse) -> Bool[Array, " n"]:
        return valid & (jnp.abs(ellipse_distance(ellipse, points)) < _CONSENSUS_PX)

    votes = jnp.sum(jax.vmap(near)(candidates), axis=1)
    best = jax.tree.map(lambda leaf: leaf[jnp.argmax(votes)], candidates)
    inlier = near(best)
    return _with_status(fit_ellipse(points, inlier.astype(points.dtype)), jnp.sum(inlier))


def _random_samples(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.choice(count, 5, replace=False) for _ in range(_SAMPLES)])


def _with_status(ellipse: Ellipse, count: Array) -> tuple[Ellipse, Status]:
    axes = ellipse.semi_axes
    is_ellipse = jnp.all(jnp.isfinite(ellipse.shape)) & (axes[0] > 0.0)
    status = first_status(
        (StatusCode.DETECTION_FAILED, count < MIN_HULL),
        (StatusCode.DETECTION_FAILED, ~is_ellipse | ~(axes[0] > MIN_AXIS_RATIO * axes[1])),
    )
    return ellipse, status
