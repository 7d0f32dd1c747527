"""Pose of known points from their pixels: linear initial estimate and least squares.

Poses are T_camera_object. Undetected points have weight 0. Source: [Y] section V.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax._least_squares import levenberg_marquardt
from dartjax._numerics import solve_positive
from dartjax._types import Matrix3, Pixels, Points, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot._small_matrices import smallest_eigenvector
from dartjax.robot.carm._carm import pose_of_projection, project_points, to_slopes
from dartjax.transforms import SE3, SO3, apply

MIN_POINTS = 6
MAX_RMS_PX = 2.0
# Units of a step: translation in mm, rotation in 0.01 rad; both have similar effects on pixels.
_UNITS = (1.0, 1.0, 1.0, 0.01, 0.01, 0.01)


class PoseFit(eqx.Module):
    """Estimated pose with its uncertainty.

    `covariance` is that of (translation, rotation) in mm and rad, the rotation about the object's
    origin, both along the camera's axes. The pixel noise is estimated from the residual.
    """

    T_camera_object: SE3
    covariance: Float[Array, "6 6"]
    rms_px: Scalar  # per point


def move(T: SE3, step: Float[Array, "6"]) -> SE3:
    """Compute T exp(step), with the rotation in units of 0.01 rad."""
    return T @ SE3.exp(step * jnp.asarray(_UNITS))


def fit_pose(
    residual: Callable[[SE3, Float[Array, " k"]], Float[Array, " m"]],
    start: SE3,
    others: Float[Array, " k"],
    *,
    num_steps: int,
) -> tuple[SE3, Float[Array, " k"], Float[Array, "n n"], Scalar]:
    """Fit a pose and other unknowns by minimising |residual(T, others)|^2.

    Returns the pose, the other unknowns, the normal matrix J^T J (pose first, in the units of
    `move`) and the cost |residual|^2 / 2. The derivative with respect to variables that `residual`
    closes over is that of a last Gauss-Newton step at the solution: the implicit derivative, up to
    terms of the size of the residual.
    """

    def moved(T: SE3, x: Float[Array, " k"], step: Float[Array, " n"]) -> Float[Array, " m"]:
        return residual(move(T, step[:6]), x + step[6:])

    size = 6 + len(others)
    fit = levenberg_marquardt(
        lambda s: moved(start, others, s), jnp.zeros(size), num_steps=num_steps
    )
    T, x = jax.lax.stop_gradient((move(start, fit.x[:6]), others + fit.x[6:]))
    r, along = jax.linearize(lambda s: moved(T, x, s), jnp.zeros(size))
    jacobian = jax.vmap(along)(jnp.eye(size)).T
    normal = jacobian.T @ jacobian
    last = jnp.linalg.solve(jax.lax.stop_gradient(normal + 1e-9 * jnp.eye(size)), jacobian.T @ r)
    # The value is zero: only the derivative is needed, and in float32 a step may increase the cost.
    last = jax.lax.stop_gradient(last) - last
    return move(T, last[:6]), x + last[6:], normal, fit.cost


def pnp_dlt(pixels: Pixels, points: Points, valid: Bool[Array, " n"], K: Matrix3) -> SE3:
    """Estimate a pose by the direct linear transform (DLT).

    Fits P = [R | t] to 6 or more points without constraining R, then takes the nearest rotation.
    Use it as an initial estimate only: its error is tens of millimetres for a target of 40 mm.
    The third row of R has unit length (Faugeras, Toscani 1986), so that all other unknowns are
    eliminated, and the row is the smallest eigenvector of a 3 x 3 matrix.
    """
    slopes, weight = to_slopes(K, pixels), valid.astype(pixels.dtype)
    seen, middle = (_weighted_mean(each, weight) for each in (slopes, points))
    extent, size = (
        jnp.sqrt(_weighted_mean(jnp.sum((each - mean[None]) ** 2, axis=1), weight) + 1e-12)
        for each, mean in ((slopes, seen), (points, middle))
    )
    X = jnp.concatenate([(points - middle[None]) / size, jnp.ones((len(points), 1))], axis=1)
    x, y = ((slopes - seen[None]) / extent).T
    outer = (X[:, :, None] * X[:, None, :]).reshape(len(points), 16)
    sums = weight[None] * jnp.stack([jnp.ones_like(x), x, y, x**2 + y**2])
    A, of_x, of_y, of_both = (sums @ outer).reshape(4, 4, 4)
    rows = solve_positive(A + 1e-9 * jnp.eye(4), jnp.concatenate([of_x, of_y], axis=1))
    S = of_both - of_x @ rows[:, :4] - of_y @ rows[:, 4:]  # of the third row and the depth
    left = S[:3, :3] - S[:3, 3:] @ S[3:, :3] / jnp.maximum(S[3, 3], 1e-12)
    third = smallest_eigenvector(0.5 * (left + left.T))
    q = jnp.append(third, -S[3, :3] @ third / jnp.maximum(S[3, 3], 1e-12))
    first, second = extent * (rows[:, :4] @ q), extent * (rows[:, 4:] @ q)
    P = jnp.stack([first + seen[0] * q, second + seen[1] * q, q])
    turn = P[:, :3] / size
    P = jnp.concatenate([turn, (P[:, 3] - turn @ middle)[:, None]], axis=1)
    return pose_of_projection(P)


def _weighted_mean(each: Float[Array, " n *k"], weight: Float[Array, " n"]) -> Float[Array, " *k"]:
    return jnp.tensordot(weight, each, 1) / jnp.maximum(jnp.sum(weight), 1e-6)


def pnp_lm(
    pixels: Pixels,
    points: Points,
    weight: Float[Array, " n"],
    K: Matrix3,
    start: SE3,
    *,
    num_steps: int = 10,
) -> tuple[PoseFit, Status]:
    """Refine a pose by minimising the weighted sum of squared reprojection errors.

    Status TOO_FEW_FIDUCIALS below 6 points with weight, DEGENERATE_GEOMETRY if points lie behind
    the source, POSE_NOT_CONVERGED if the rms exceeds 2 px; the pose is returned in every case.
    Differentiable in the pixels (see `fit_pose`).
    """
    pose, normal, cost = _reprojection_steps(pixels, points, weight, K, start, num_steps)
    count = jnp.sum(weight)
    variance = 2.0 * cost / jnp.maximum(2.0 * count - 6.0, 1.0)
    covariance = solve_positive(normal + 1e-9 * jnp.eye(6), jnp.eye(6)) * variance
    rms = jnp.sqrt(2.0 * cost / jnp.maximum(count, 1e-6))
    status = first_status(
        (StatusCode.TOO_FEW_FIDUCIALS, jnp.sum(weight > 0.0) < MIN_POINTS),
        (StatusCode.DEGENERATE_GEOMETRY, jnp.any(apply(pose, points)[:, 2] <= 0.0)),
        (StatusCode.POSE_NOT_CONVERGED, ~(rms < MAX_RMS_PX)),
    )
    return PoseFit(pose, covariance, rms), status


class _Motion(eqx.Module):
    """Pose as matrix and vector: cheaper than a quaternion for a batch of a million poses."""

    rotation: Matrix3
    translation: Float[Array, "3"]


def _moved(pose: _Motion, step: Float[Array, "6"]) -> _Motion:
    """Pose after a step: rotated about its own origin by a rotation vector (with the Cayley map,
    which is a rotation for any step), then shifted."""
    w = 0.5 * step[3:]
    cross = _cross_matrix(w)
    turn = jnp.eye(3) + 2.0 / (1.0 + jnp.sum(w**2)) * (cross + cross @ cross)
    return _Motion(turn @ pose.rotation, pose.translation + step[:3])


def _cross_matrix(w: Float[Array, "3"]) -> Matrix3:
    zero = jnp.zeros(())
    return jnp.array([[zero, -w[2], w[1]], [w[2], zero, -w[0]], [-w[1], w[0], zero]])


def _equations(
    pose: _Motion, pixels: Pixels, points: Points, weight: Float[Array, " n"], K: Matrix3
) -> tuple[Float[Array, "6 6"], Float[Array, "6"], Scalar]:
    """Normal equations J^T W J and J^T W r, and the cost, of the reprojection error."""
    turned = points @ pose.rotation.T
    x, y, z = (turned + pose.translation[None]).T
    a, b, c = turned.T
    fx, fy = K[0, 0] / z, K[1, 1] / z
    xz, yz, zero = x / z, y / z, jnp.zeros_like(z)
    along_u = [fx, zero, -fx * xz, -fx * xz * b, fx * (c + xz * a), -fx * b]
    along_v = [zero, fy, -fy * yz, -fy * (c + yz * b), fy * yz * a, fy * a]
    jacobian = jnp.concatenate([jnp.stack(along_u, axis=1), jnp.stack(along_v, axis=1)])
    r = jnp.concatenate(
        [z * fx * xz + K[0, 2] - pixels[:, 0], z * fy * yz + K[1, 2] - pixels[:, 1]]
    )
    both = jnp.concatenate([weight, weight])
    weighted = jacobian * both[:, None]
    return weighted.T @ jacobian, weighted.T @ r, 0.5 * jnp.sum(both * r**2)


def _reprojection_steps(
    pixels: Pixels,
    points: Points,
    weight: Float[Array, " n"],
    K: Matrix3,
    start: SE3,
    num_steps: int,
) -> tuple[SE3, Float[Array, "6 6"], Scalar]:
    """Levenberg-Marquardt with an analytic Jacobian, for large batches of poses.

    The result has the implicit derivative at the solution, as in `fit_pose`.
    """
    data = jax.lax.stop_gradient((pixels, points, weight, K))

    def step(carry, _):
        pose, (normal, gradient, cost), damping = carry
        damped = normal + jnp.diag(damping * jnp.diag(normal) + 1e-9)
        candidate = _moved(pose, -solve_positive(damped, gradient[:, None])[:, 0])
        equations = _equations(candidate, *data)
        better = equations[2] < cost  # false for NaN
        keep = (candidate, equations), (pose, (normal, gradient, cost))
        pose, equations = jax.tree.map(lambda new, old: jnp.where(better, new, old), *keep)
        damping = jnp.clip(damping * jnp.where(better, 0.1, 10.0), 1e-9, 1e9)
        return (pose, equations, damping), None

    first = _Motion(start.rotation().as_matrix(), start.translation())
    first = jax.lax.stop_gradient(first)
    carry = first, _equations(first, *data), jnp.asarray(1e-4, pixels.dtype)
    (pose, _, _), _ = jax.lax.scan(step, carry, length=num_steps)
    normal, gradient, cost = _equations(pose, pixels, points, weight, K)
    last = solve_positive(jax.lax.stop_gradient(normal) + 1e-9 * jnp.eye(6), gradient[:, None])[
        :, 0
    ]
    pose = _moved(pose, jax.lax.stop_gradient(last) - last)
    T = SE3.from_rotation_and_translation(SO3.from_matrix(pose.rotation), pose.translation)
    return T, normal, cost


def estimate_pose(
    pixels: Pixels, points: Points, valid: Bool[Array, " n"], K: Matrix3, *, num_steps: int = 12
) -> tuple[PoseFit, Status]:
    """Estimate a pose by DLT and least squares (NL-DLT): the default for points in two planes.

    A second initial estimate is the scaled parallel projection, which tolerates noise of two pixels
    better than the DLT. The initial estimate with the lower residual is refined.
    """
    weight = valid.astype(pixels.dtype)
    starts = pnp_dlt(pixels, points, valid, K), _parallel_projection_pose(pixels, points, weight, K)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), *starts)
    cost = jax.vmap(lambda T: _cost(T, pixels, points, weight, K))(both)
    best = jnp.argmin(jnp.where(jnp.isfinite(cost), cost, jnp.inf))
    start = jax.tree.map(lambda leaf: leaf[best], both)
    return pnp_lm(pixels, points, weight, K, start, num_steps=num_steps)


def _cost(T: SE3, pixels: Pixels, points: Points, weight: Float[Array, " n"], K: Matrix3) -> Scalar:
    """Squared reprojection error; infinite for a pose with points behind the source, which is the
    mirrored solution of a target seen from behind."""
    error = project_points(K, T, points) - pixels
    behind = jnp.any(apply(T, points)[:, 2] <= 0.0)
    return jnp.where(behind, jnp.inf, jnp.sum(weight * jnp.sum(error**2, axis=1)))


def _parallel_projection_pose(
    pixels: Pixels, points: Points, weight: Float[Array, " n"], K: Matrix3
) -> SE3:
    """Pose from a scaled parallel projection: a linear map of points to slopes at equal depth."""
    slopes = to_slopes(K, pixels)
    seen, middle = (_weighted_mean(each, weight) for each in (slopes, points))
    X = points - middle[None]
    normal = X.T @ (weight[:, None] * X) + 1e-6 * jnp.eye(3)
    rows = solve_positive(normal, X.T @ (weight[:, None] * (slopes - seen[None]))).T
    # Nearest pair of orthogonal unit rows, (M M^T)^-1/2 M; the scale is their mean length.
    (a, b), (_, d) = rows @ rows.T
    root = jnp.sqrt(jnp.maximum(a * d - b**2, 1e-30))
    double = jnp.sqrt(a + d + 2.0 * root)  # the sum of the two singular values
    inverse_root = jnp.array([[d + root, -b], [-b, a + root]]) / (root * double)
    flat = inverse_root @ rows
    rotation = jnp.concatenate([flat, jnp.cross(flat[0], flat[1])[None]])
    depth = 2.0 / jnp.maximum(double, 1e-9)
    place = depth * jnp.append(seen, 1.0) - rotation @ middle
    return SE3.from_rotation_and_translation(SO3.from_matrix(rotation), place)


def residual_2d_mm(
    pixels: Pixels, points: Points, K: Matrix3, T: SE3, pixel_spacing: float
) -> Float[Array, " n"]:
    """Compute distances of detected from projected points on the detector, mm: 2D error of [Y]."""
    error = project_points(K, T, points) - pixels
    return jnp.linalg.norm(error, axis=1) * pixel_spacing


def residual_3d_mm(pixels: Pixels, points: Points, K: Matrix3, T: SE3) -> Float[Array, " n"]:
    """Compute the distance of every point from the ray of its pixel, mm: the 3D error of [Y]."""
    slopes = to_slopes(K, pixels)
    ray = jnp.concatenate([slopes, jnp.ones_like(slopes[:, :1])], axis=1)
    ray = ray / jnp.linalg.norm(ray, axis=1, keepdims=True)
    in_camera = apply(T, points)
    along = jnp.sum(in_camera * ray, axis=1, keepdims=True)
    return jnp.linalg.norm(in_camera - along * ray, axis=1)
