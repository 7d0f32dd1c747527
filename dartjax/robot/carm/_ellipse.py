"""Ellipses fitted to edge points of a hole, by the hull of the points or by consensus."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._least_squares import levenberg_marquardt
from dartjax._types import Matrix3, Pixels
from dartjax.robot._errors import Status, StatusCode, first_status

NUM_DIRECTIONS = 128  # in which a hull point must be the furthest
_SAMPLES = 96  # of five points, for the consensus
_CONSENSUS_PX = 0.5
MIN_HULL, MIN_AXIS_RATIO = 8, 0.5


class Ellipse(eqx.Module):
    """(x - center)^T shape^-1 (x - center) = 1; the semi-axes are the square roots of the
    eigenvalues of `shape`."""

    center: Float[Array, "2"]
    shape: Float[Array, "2 2"]

    @property
    def semi_axes(self) -> Float[Array, "2"]:
        """Half lengths, shorter first."""
        return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(self.shape), 0.0))

    @property
    def aspect(self) -> Array:
        """Shorter over longer axis: the cosine of the slant of a circle."""
        return self.semi_axes[0] / self.semi_axes[1]

    @property
    def conic(self) -> Matrix3:
        """Q with (x, y, 1) Q (x, y, 1)^T = 0 on the ellipse and negative inside."""
        inverse = jnp.linalg.inv(self.shape)
        linear = -inverse @ self.center
        constant = self.center @ inverse @ self.center - 1.0
        upper = jnp.concatenate([inverse, linear[:, None]], axis=1)
        return jnp.concatenate([upper, jnp.append(linear, constant)[None]])


def on_hull(points: Pixels, valid: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """Points of the convex hull: those furthest out in at least one of 128 directions. Inside an
    opaque nail false edges can only lie within the hole, so the hull drops them."""
    angles = jnp.asarray(2.0 * np.pi * np.arange(NUM_DIRECTIONS) / NUM_DIRECTIONS)
    direction = jnp.stack([jnp.cos(angles), jnp.sin(angles)])
    reach = jnp.where(valid[:, None], points @ direction, -jnp.inf)
    first = jnp.argmax(reach, axis=0)
    return jnp.zeros(len(points), bool).at[first].set(True) & valid


def fit_ellipse(points: Pixels, weight: Float[Array, " n"]) -> Ellipse:
    """Ellipse with the least squared (Sampson) distance to weighted points.

    Starts from the linear conic fit whose trace is 1, in coordinates of mean 0 and size 1; at
    least 5 points are needed. A conic that is no ellipse gives NaN.
    """
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
        return jnp.sqrt(weight) * value / jnp.sqrt(gx**2 + gy**2 + 1e-9)

    a, b, d, e, f = levenberg_marquardt(residual, start, num_steps=8).x
    matrix = jnp.array([[a, 0.5 * b], [0.5 * b, 1.0 - a]])
    center = -0.5 * jnp.linalg.solve(matrix, jnp.array([d, e]))
    level = center @ matrix @ center - f
    return Ellipse(mean + size * center, size**2 * level * jnp.linalg.inv(matrix))


def ellipse_distance(ellipse: Ellipse, points: Pixels) -> Float[Array, " n"]:
    """Signed (Sampson) distance of points from an ellipse, positive outside."""
    offset = points - ellipse.center[None]
    pulled = offset @ jnp.linalg.inv(ellipse.shape)
    value = jnp.sum(offset * pulled, axis=1) - 1.0
    return value / (2.0 * jnp.linalg.norm(pulled, axis=1) + 1e-9)


def hull_ellipse(points: Pixels, valid: Bool[Array, " n"]) -> tuple[Ellipse, Status]:
    """The model-based fit: hull points only. DETECTION_FAILED with fewer than 8 of them, for a
    conic that is no ellipse, or an axis ratio below 0.5."""
    hull = on_hull(points, valid)
    return _checked(fit_ellipse(points, hull.astype(points.dtype)), jnp.sum(hull))


def consensus_ellipse(points: Pixels, valid: Bool[Array, " n"]) -> tuple[Ellipse, Status]:
    """The fit by consensus: of 96 conics through five points the one with most points within half
    a pixel, refitted to those. Same status as `hull_ellipse`."""
    weight = valid.astype(points.dtype)

    def through(five: Array) -> Ellipse:
        chosen = jnp.zeros(len(points)).at[five].set(1.0) * weight
        return fit_ellipse(points, chosen)

    candidates = jax.vmap(through)(jnp.asarray(_fives(len(points))))

    def near(ellipse: Ellipse) -> Bool[Array, " n"]:
        return valid & (jnp.abs(ellipse_distance(ellipse, points)) < _CONSENSUS_PX)

    votes = jnp.sum(jax.vmap(near)(candidates), axis=1)
    best = jax.tree.map(lambda leaf: leaf[jnp.argmax(votes)], candidates)
    inlier = near(best)
    return _checked(fit_ellipse(points, inlier.astype(points.dtype)), jnp.sum(inlier))


def _fives(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.choice(count, 5, replace=False) for _ in range(_SAMPLES)])


def _checked(ellipse: Ellipse, count: Array) -> tuple[Ellipse, Status]:
    axes = ellipse.semi_axes
    is_ellipse = jnp.all(jnp.isfinite(ellipse.shape)) & (axes[0] > 0.0)
    status = first_status(
        (StatusCode.DETECTION_FAILED, count < MIN_HULL),
        (StatusCode.DETECTION_FAILED, ~is_ellipse | ~(axes[0] > MIN_AXIS_RATIO * axes[1])),
    )
    return ellipse, status
