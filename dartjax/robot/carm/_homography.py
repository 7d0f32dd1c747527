"""Homographies between planes: linear fit to points, refinement of the transfer error."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax._least_squares import levenberg_marquardt
from dartjax._numerics import safe_norm
from dartjax._types import Matrix3, Pixels, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status

MAX_CONDITION = 1e6


def apply_homography(H: Matrix3, points: Pixels) -> Pixels:
    """Map points (n, 2) by (x, y, 1) -> H (x, y, 1). A point that H maps to infinity gives infinite
    coordinates."""
    mapped = points @ H[:, :2].T + H[None, :, 2]
    return mapped[:, :2] / mapped[:, 2:]


def counted_points(points: Pixels, weight: Float[Array, " n"]) -> Pixels:
    """Replace points of weight 0, which may be NaN, by the mean of the others, where every map and
    its gradient are finite."""
    counts = (weight != 0.0)[:, None]
    points = jnp.where(counts, points, 0.0)
    mean = jnp.sum(points, axis=0) / jnp.maximum(jnp.sum(counts), 1)
    return jnp.where(counts, points, mean[None])


def normalisation(points: Pixels, weight: Float[Array, " n"]) -> Matrix3:
    """Compute the similarity that maps weighted points to mean 0 and mean distance sqrt(2)
    (Hartley). Points of weight 0 may be NaN."""
    points = counted_points(points, weight)
    total = jnp.maximum(jnp.sum(weight), 1e-9)
    center = jnp.sum(weight[:, None] * points, axis=0) / total
    distance = jnp.sqrt(jnp.sum((points - center[None]) ** 2, axis=1) + 1e-12)
    scale = jnp.sqrt(2.0) * total / jnp.maximum(jnp.sum(weight * distance), 1e-9)
    return jnp.array(
        [[scale, 0.0, -scale * center[0]], [0.0, scale, -scale * center[1]], [0, 0, 1]]
    )


def homography_dlt(
    source: Pixels, target: Pixels, valid: Bool[Array, " n"]
) -> tuple[Matrix3, Status]:
    """Fit H with target ~ H source by the normalised direct linear transform, H[2, 2] = 1.

    At least 4 valid points are needed, no three of them collinear. Otherwise the status is
    TOO_FEW_FIDUCIALS or DEGENERATE_GEOMETRY, and H is not meaningful. Points that are not valid may
    be NaN.
    """
    weight = valid.astype(source.dtype)
    source, target = counted_points(source, weight), counted_points(target, weight)
    to_source, to_target = normalisation(source, weight), normalisation(target, weight)
    a, b = apply_homography(to_source, source), apply_homography(to_target, target)
    one, zero = jnp.ones(len(a)), jnp.zeros(len(a))
    x, y, u, v = a[:, 0], a[:, 1], b[:, 0], b[:, 1]
    rows_u = jnp.stack([x, y, one, zero, zero, zero, -u * x, -u * y, -u], axis=1)
    rows_v = jnp.stack([zero, zero, zero, x, y, one, -v * x, -v * y, -v], axis=1)
    design = jnp.concatenate([rows_u, rows_v]) * jnp.concatenate([weight, weight])[:, None]
    values, null = _null_vector(design.T @ design)
    H = jnp.linalg.inv(to_target) @ null.reshape(3, 3) @ to_source
    condition = values[-1] / jnp.maximum(values[1], 1e-30)
    status = first_status(
        (StatusCode.TOO_FEW_FIDUCIALS, jnp.sum(valid) < 4),
        (StatusCode.DEGENERATE_GEOMETRY, ~(condition < MAX_CONDITION)),
    )
    return H / H[2, 2], status


def _null_vector(
    matrix: Float[Array, "n n"],
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Compute the eigenvalues of a symmetric matrix, and the eigenvector v of the smallest one.

    dv = -(M - w)^+ dM v. The derivative of a whole decomposition is infinite for two equal
    eigenvalues, as of points on a square, even if both are large."""
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(matrix))
    null, gaps = vectors[:, 0], values - values[0]
    inverse = jnp.where(gaps > 0.0, 1.0 / jnp.where(gaps > 0.0, gaps, 1.0), 0.0)
    change = -(vectors * inverse[None]) @ (vectors.T @ (matrix @ null))
    return values, null + change - jax.lax.stop_gradient(change)


def homography_refine(
    H: Matrix3, source: Pixels, target: Pixels, valid: Bool[Array, " n"], *, num_steps: int = 6
) -> tuple[Matrix3, Scalar]:
    """Refine H by minimising the distances |target - H source|. Returns H and the rms distance.
    Points that are not valid may be NaN."""
    weight = valid.astype(source.dtype)
    source, target = counted_points(source, weight), counted_points(target, weight)
    to_source, to_target = normalisation(source, weight), normalisation(target, weight)
    a, b = apply_homography(to_source, source), apply_homography(to_target, target)

    def matrix(h: Float[Array, "8"]) -> Matrix3:
        return jnp.append(h, 1.0).reshape(3, 3)

    def residual(h: Float[Array, "8"]) -> Float[Array, " m"]:
        return (weight[:, None] * (apply_homography(matrix(h), a) - b)).reshape(-1)

    start = to_target @ H @ jnp.linalg.inv(to_source)
    start = (start / start[2, 2]).reshape(-1)[:8]
    fit = levenberg_marquardt(residual, start, num_steps=num_steps)
    refined = jnp.linalg.inv(to_target) @ matrix(fit.x) @ to_source
    refined = refined / refined[2, 2]
    error = weight[:, None] * (apply_homography(refined, source) - target)
    return refined, safe_norm(error.reshape(-1)) / jnp.sqrt(jnp.maximum(jnp.sum(weight), 1.0))
