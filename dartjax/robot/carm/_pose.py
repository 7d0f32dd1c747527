"""Pose of known points from their pixels: linear initial estimate and least squares.

Poses are T_camera_object. Undetected points have weight 0; their pixels may be NaN. Source: [Y]
section V.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax._least_squares import levenberg_marquardt
from dartjax._numerics import solve_positive
from dartjax._types import Matrix3, Pixels, Point, Points, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot._small_matrices import smallest_eigenvector
from dartjax.robot.carm._carm import pose_of_projection, project_points, to_slopes
from dartjax.transforms import SE3, SO3, apply

MIN_POINTS = 6
MAX_RMS_PX = 2.0
# Units of a step: translation in mm, rotation in 0.01 rad; both have similar effects on pixels.
_UNITS = (1.0, 1.0, 1.0, 0.01, 0.01, 0.01)
_LEAST_WIDTH = 3e-3  # of points across their longest extent; below it they are collinear
_LAST_STEP_RAD = 0.01  # a last step that turns by more has not converged
_MOST_SIGMA_RAD = 0.02  # of the rotation; above it the points do not determine it
_SAME_POSE_RAD = 0.02  # of rotation; poses nearer to each other are one solution
_LEAST_LOG_ODDS = 6.9  # of the best pose against the other one of planar points: 1000 to 1


class PoseFit(eqx.Module):
    """Estimated pose with its uncertainty.

    `covariance` is that of (translation, rotation) in mm and rad, the rotation about the object's
    origin, both along the camera's axes. The pixel noise is estimated from the residual.
    `runner_up` is the cost of the mirrored pose of planar points over that of this pose; near 1 the
    pose is ambiguous. It is infinite if there is no such pose.
    """

    T_camera_object: SE3
    covariance: Float[Array, "6 6"]
    rms_px: Scalar  # per point
    runner_up: Scalar = eqx.field(default_factory=lambda: jnp.asarray(jnp.inf))


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
    pixels, points = _masked(pixels, points, valid)
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

    Status TOO_FEW_FIDUCIALS below 6 points with weight, DEGENERATE_GEOMETRY if these points are
    collinear or identical or lie behind the source, POSE_NOT_CONVERGED if the rms exceeds 2 px or
    the last step still turns by 0.01 rad; the pose is returned in every case. Differentiable in the
    pixels (see `fit_pose`).
    """
    data = *_masked(pixels, points, weight > 0.0), weight, K
    return _result(_minimised(_motion_of(start), data, num_steps)[0], data)


def _masked(pixels: Pixels, points: Points, valid: Bool[Array, " n"]) -> tuple[Pixels, Points]:
    """Replace points that are not valid, and their pixels, by the means of the valid ones."""
    count = jnp.maximum(jnp.sum(valid), 1)
    known = [jnp.where(valid[:, None], each, 0.0) for each in (pixels, points)]
    pixels, points = (
        jnp.where(valid[:, None], each, (jnp.sum(each, axis=0) / count)[None]) for each in known
    )
    return pixels, points


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


_Data = tuple[Pixels, Points, Float[Array, " n"], Matrix3]


def _motion_of(T: SE3) -> _Motion:
    return _Motion(T.rotation().as_matrix(), T.translation())


def _minimised(start: _Motion, data: _Data, num_steps: int) -> tuple[_Motion, Scalar]:
    """Levenberg-Marquardt with an analytic Jacobian, for large batches of poses: pose and cost,
    without derivatives."""
    start, data = jax.lax.stop_gradient((start, data))

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

    carry = start, _equations(start, *data), jnp.asarray(1e-4, data[0].dtype)
    (pose, equations, _), _ = jax.lax.scan(step, carry, length=num_steps)
    return pose, equations[2]


def _result(pose: _Motion, data: _Data) -> tuple[PoseFit, Status]:
    """Pose with covariance, rms and status, and with the implicit derivative at the solution, as in
    `fit_pose`."""
    _, points, weight, _ = data
    normal, gradient, cost = _equations(pose, *data)
    fixed = jax.lax.stop_gradient(normal) + 1e-9 * jnp.eye(6)
    last = solve_positive(fixed, gradient[:, None])[:, 0]
    pose = _moved(pose, jax.lax.stop_gradient(last) - last)
    T = SE3.from_rotation_and_translation(SO3.from_matrix(pose.rotation), pose.translation)
    count = jnp.sum(weight)
    variance = 2.0 * cost / jnp.maximum(2.0 * count - 6.0, 1.0)
    covariance = solve_positive(normal + 1e-9 * jnp.eye(6), jnp.eye(6)) * variance
    rms = jnp.sqrt(2.0 * cost / jnp.maximum(count, 1e-6))
    is_at_rest = jnp.sum(last[3:] ** 2) < _LAST_STEP_RAD**2
    status = first_status(
        (StatusCode.TOO_FEW_FIDUCIALS, jnp.sum(weight > 0.0) < MIN_POINTS),
        (StatusCode.DEGENERATE_GEOMETRY, _are_collinear(points, weight)),
        (StatusCode.DEGENERATE_GEOMETRY, ~jnp.all(apply(T, points)[:, 2] > 0.0)),
        (StatusCode.POSE_NOT_CONVERGED, ~(rms < MAX_RMS_PX) | ~is_at_rest),
    )
    return PoseFit(T, covariance, rms), status


def _scatter(points: Points, weight: Float[Array, " n"]) -> tuple[Point, Matrix3]:
    """Weighted mean and covariance of points."""
    middle = _weighted_mean(points, weight)
    X = points - middle[None]
    return middle, X.T @ (weight[:, None] * X) / jnp.maximum(jnp.sum(weight), 1e-6)


def _are_collinear(points: Points, weight: Float[Array, " n"]) -> Bool[Array, ""]:
    """Whether the points lie on a line or in one place. Of the eigenvalues of their covariance, the
    sum of products over the squared sum is the square of width over length."""
    _, C = _scatter(points, weight)
    total, squares = jnp.trace(C), jnp.sum(C**2)
    apart = total > 1e-6  # mm^2
    return ~(apart & (0.5 * (total**2 - squares) > _LEAST_WIDTH**2 * total**2))


def estimate_pose(
    pixels: Pixels, points: Points, valid: Bool[Array, " n"], K: Matrix3, *, num_steps: int = 12
) -> tuple[PoseFit, Status]:
    """Estimate a pose by DLT and least squares (NL-DLT): the default for points in two planes.

    Other initial estimates are scaled parallel projections of points in space and of points in a
    plane, which tolerate noise of two pixels better than the DLT. The initial estimate with the
    lowest residual is refined. Planar points have a second solution with the plane reflected about
    the line of sight (Schweighofer, Pinz 2006): it is refined too, the better one is returned, and
    `runner_up` compares both.
    Status as in `pnp_lm`, and DEGENERATE_GEOMETRY if the other solution is nearly as likely (odds
    below 1000 for normal noise) and differs by more than 0.02 rad, or if the standard deviation of
    the rotation exceeds 0.02 rad. Points that are not valid have no influence, also if they are
    NaN.
    """
    weight = valid.astype(pixels.dtype)
    pixels, points = _masked(pixels, points, valid)
    data = pixels, points, weight, K
    parallel = _parallel_projection_poses(pixels, points, weight, K)
    starts = jax.tree.map(lambda *a: jnp.stack(a), pnp_dlt(pixels, points, valid, K), *parallel)
    cost = jax.vmap(lambda T: _cost(T, pixels, points, weight, K))(starts)
    best = jnp.argmin(jnp.where(jnp.isfinite(cost), cost, jnp.inf))
    start = jax.tree.map(lambda leaf: leaf[best], starts)
    first, first_cost = _minimised(_motion_of(start), data, num_steps)
    second, second_cost = _minimised(_reflected(first, points, weight), data, num_steps)
    better = (second_cost < first_cost) & jnp.all(_depths(second, points) > 0.0)
    choose = jnp.where(better, jnp.array([1, 0]), jnp.array([0, 1]))
    solutions = jax.tree.map(lambda a, b: jnp.stack([a, b])[choose], first, second)
    pose, other = (jax.tree.map(lambda leaf, i=i: leaf[i], solutions) for i in (0, 1))
    fit, status = _result(pose, data)
    runner_up = jnp.minimum(
        _cost_ratio(other, pose, data),
        # In one broad minimum both solutions end in the same pose.
        _cost_ratio(_reflected(pose, points, weight), pose, data),
    )
    fit = eqx.tree_at(lambda f: f.runner_up, fit, runner_up)
    is_ambiguous = ~(jnp.sum(weight) * jnp.log(runner_up) > _LEAST_LOG_ODDS)
    is_loose = ~(jnp.trace(fit.covariance[3:, 3:]) < _MOST_SIGMA_RAD**2)
    unclear = (status == StatusCode.OK) & (is_ambiguous | is_loose)
    return fit, jnp.where(unclear, jnp.int32(StatusCode.DEGENERATE_GEOMETRY), status)


def _cost_ratio(other: _Motion, pose: _Motion, data: _Data) -> Scalar:
    """Cost of another pose over that of the best one; infinite for a pose next to it, or one with
    points behind the source."""
    other, pose, data = jax.lax.stop_gradient((other, pose, data))
    costs = [_equations(each, *data)[2] for each in (other, pose)]
    ratio = costs[0] / jnp.maximum(costs[1], 1e-12)
    # |R1 - R2| = 2 sqrt(2) sin(angle / 2), nearly sqrt(2) times a small angle.
    gap = jnp.sqrt(jnp.sum((other.rotation - pose.rotation) ** 2))
    is_other = (gap > jnp.sqrt(2.0) * _SAME_POSE_RAD) & jnp.all(_depths(other, data[1]) > 0.0)
    return jnp.where(is_other & jnp.isfinite(ratio), ratio, jnp.inf)


def _reflected(pose: _Motion, points: Points, weight: Float[Array, " n"]) -> _Motion:
    """The other pose with nearly the same image, for planar points: their plane is reflected about
    the line of sight to their middle."""
    middle, C = _scatter(points, weight)
    normal = smallest_eigenvector(C)
    place = pose.rotation @ middle + pose.translation
    sight = place / jnp.maximum(jnp.sqrt(jnp.sum(place**2)), 1e-9)
    across = jnp.eye(3) - 2.0 * jnp.outer(sight, sight)
    rotation = across @ pose.rotation @ (jnp.eye(3) - 2.0 * jnp.outer(normal, normal))
    return _Motion(rotation, place - rotation @ middle)


def _depths(pose: _Motion, points: Points) -> Float[Array, " n"]:
    return points @ pose.rotation[2] + pose.translation[2]


def _cost(T: SE3, pixels: Pixels, points: Points, weight: Float[Array, " n"], K: Matrix3) -> Scalar:
    """Squared reprojection error; infinite for a pose with points behind the source, which is the
    mirrored solution of a target seen from behind."""
    error = project_points(K, T, points) - pixels
    behind = ~jnp.all(apply(T, points)[:, 2] > 0.0)
    return jnp.where(behind, jnp.inf, jnp.sum(weight * jnp.sum(error**2, axis=1)))


def _parallel_projection_poses(
    pixels: Pixels, points: Points, weight: Float[Array, " n"], K: Matrix3
) -> tuple[SE3, SE3]:
    """Poses from a scaled parallel projection, a linear map of points to slopes at equal depth: for
    points in space, and for points in a plane (one of the two solutions)."""
    slopes = to_slopes(K, pixels)
    seen, (middle, C) = _weighted_mean(slopes, weight), _scatter(points, weight)
    X = points - middle[None]
    normal = X.T @ (weight[:, None] * X) + 1e-6 * jnp.eye(3)
    rows = solve_positive(normal, X.T @ (weight[:, None] * (slopes - seen[None]))).T
    return _pose_of_rows(rows, seen, middle), _pose_of_rows(_completed(rows, C), seen, middle)


def _completed(rows: Float[Array, "2 3"], scatter: Matrix3) -> Float[Array, "2 3"]:
    """Complete the map s R[:2] of points in a plane by its part along the plane's normal n.

    Within the plane it is s (R[:2] - a n^T) with a = R[:2] n, whose square is s^2 (I - a a^T).
    """
    n = smallest_eigenvector(scatter)
    within = rows - jnp.outer(rows @ n, n)
    (a, b), (_, d) = within @ within.T
    half = jnp.sqrt((0.5 * (a - d)) ** 2 + b**2 + 1e-30)
    square = 0.5 * (a + d) + half  # s^2, the larger eigenvalue
    turn = 0.5 * jnp.arctan2(2.0 * b, a - d)
    across = jnp.stack([-jnp.sin(turn), jnp.cos(turn)]) * jnp.sqrt(2.0 * half)
    return jnp.where(square > 1e-20, within + jnp.outer(across, n), rows)


def _pose_of_rows(rows: Float[Array, "2 3"], seen: Float[Array, "2"], middle: Point) -> SE3:
    """Pose whose scaled first two rows are nearest to these; `seen` are the slopes of `middle`."""
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
