"""The C-arm as a pinhole camera, and its calibration from a phantom with two planes of balls."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax._least_squares import levenberg_marquardt
from dartjax._types import Matrix3, Pixels, Points, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot._small_matrices import nearest_rotation
from dartjax.robot.carm._distortion import Intensifier, distort_points, undistort_points
from dartjax.robot.carm._homography import normalisation
from dartjax.transforms import SE3, SO3, apply

MIN_POINTS = 12
_MIN_SPREAD = 1e-3  # smallest over largest extent of the points; below it they are coplanar


class CarmView(eqx.Module):
    """The C-arm in one pose: pinhole camera, distortion of the image intensifier, and orientation.
    The distortion depends on the orientation."""

    K: Matrix3
    tube: Intensifier
    R_world_camera: SO3
    image_size: tuple[int, int] = eqx.field(static=True, default=(576, 768))

    def recorded(self, ideal: Pixels) -> Pixels:
        """Map ideal pixels to pixels of the recorded image."""
        return distort_points(self.tube, self.R_world_camera, ideal)

    def ideal(self, recorded: Pixels) -> Pixels:
        """Map pixels of the recorded image to ideal pixels."""
        return undistort_points(self.tube, self.R_world_camera, recorded)


class CarmCalibration(eqx.Module):
    """Calibrated K and pose of a C-arm, with the covariance of all parameters.

    `covariance` is that of (f, cx, cy, rotation (rad, 3), translation (mm, 3)), for the
    right-hand perturbation T exp(step).
    """

    K: Matrix3
    T_camera_phantom: SE3
    rms_px: Scalar  # per point
    covariance: Float[Array, "9 9"]

    @property
    def sigma(self) -> Float[Array, "9"]:
        """Standard deviations of (f, cx, cy, rotation, translation)."""
        return jnp.sqrt(jnp.diag(self.covariance))


def intrinsics(focal_length: Scalar | float, principal_point: Float[Array, "2"]) -> Matrix3:
    """Build K of a camera with square pixels, lengths in px."""
    f, (cx, cy) = focal_length, principal_point
    return jnp.array([[f, 0.0, cx], [0.0, f, cy], [0.0, 0.0, 1.0]])


def project_points(K: Matrix3, T_camera_object: SE3, points: Points) -> Pixels:
    """Project points (n, 3) of an object to pixels (n, 2). Depth 0 gives infinite pixels."""
    in_camera = apply(T_camera_object, points)
    return in_camera[:, :2] / in_camera[:, 2:] @ K[:2, :2].T + K[None, :2, 2]


def to_slopes(K: Matrix3, pixels: Pixels) -> Pixels:
    """Convert pixels to slopes (x/z, y/z) of their rays, for a K without skew."""
    return (pixels - K[None, :2, 2]) / jnp.diag(K)[None, :2]


def projection_dlt(points: Points, pixels: Pixels, valid: Bool[Array, " n"]) -> Float[Array, "3 4"]:
    """Fit P with pixels ~ P (points, 1), by the normalised direct linear transform.

    Needs 6 valid points that are not coplanar; otherwise P is arbitrary. Points that are not valid
    have no influence, also if they are NaN.
    """
    pixels, points = (jnp.where(valid[:, None], each, 0.0) for each in (pixels, points))
    weight = valid.astype(points.dtype)
    to_pixels = normalisation(pixels, weight)
    uv = pixels @ to_pixels[:2, :2].T + to_pixels[None, :2, 2]
    center = jnp.sum(weight[:, None] * points, axis=0) / jnp.maximum(jnp.sum(weight), 1.0)
    spread = jnp.sum(weight * jnp.linalg.norm(points - center[None], axis=1))
    scale = jnp.sqrt(3.0) * jnp.maximum(jnp.sum(weight), 1.0) / jnp.maximum(spread, 1e-9)
    X = jnp.concatenate([scale * (points - center[None]), jnp.ones((len(points), 1))], axis=1)
    zero = jnp.zeros_like(X)
    rows_u = jnp.concatenate([X, zero, -uv[:, :1] * X], axis=1)
    rows_v = jnp.concatenate([zero, X, -uv[:, 1:] * X], axis=1)
    design = jnp.concatenate([rows_u, rows_v]) * jnp.concatenate([weight, weight])[:, None]
    _, vectors = jnp.linalg.eigh(design.T @ design)
    to_points = jnp.eye(4) * jnp.append(jnp.full(3, scale), 1.0)[None, :]
    to_points = to_points.at[:3, 3].set(-scale * center)
    return jnp.linalg.inv(to_pixels) @ vectors[:, 0].reshape(3, 4) @ to_points


def pose_of_projection(P: Float[Array, "3 4"]) -> SE3:
    """Compute the rigid pose nearest to P = s [R | t] of normalised pixels.

    R is the nearest rotation to the left part of P, with the sign that makes its determinant
    positive.
    """
    P = P * jnp.sign(jnp.linalg.det(P[:, :3]))
    rotation = nearest_rotation(P[:, :3])
    scale = jnp.sum(rotation * P[:, :3]) / 3.0
    return SE3.from_rotation_and_translation(SO3.from_matrix(rotation), P[:, 3] / scale)


def split_projection(P: Float[Array, "3 4"]) -> tuple[Matrix3, SE3]:
    """Split a projection matrix into K and pose by RQ decomposition.

    K is upper triangular with positive diagonal and K[2, 2] = 1.
    """
    P = P * jnp.sign(jnp.linalg.det(P[:, :3]))
    flip = jnp.eye(3)[::-1]
    q, r = jnp.linalg.qr((flip @ P[:, :3]).T)
    K, rotation = flip @ r.T @ flip, flip @ q.T
    sign = jnp.sign(jnp.diag(K))
    K, rotation = K * sign[None, :], sign[:, None] * rotation
    translation = jnp.linalg.solve(K, P[:, 3])
    return K / K[2, 2], SE3.from_rotation_and_translation(SO3.from_matrix(rotation), translation)


# Scales of f, cx, cy (px), rotation (rad) and translation (mm) that have similar effects on pixels.
_UNITS = (10.0, 10.0, 10.0, 0.01, 0.01, 0.01, 1.0, 1.0, 1.0)


def calibrate_carm(
    pixels: Pixels, points: Points, valid: Bool[Array, " n"], *, num_steps: int = 30
) -> tuple[CarmCalibration, Status]:
    """Fit K with square pixels and the pose of a phantom to its balls (mm) and their pixels.

    Starts with the DLT and an RQ decomposition, then minimises the reprojection error over all nine
    parameters. The covariance is (J^T J)^-1 sigma^2 with sigma from the residual. Status
    TOO_FEW_FIDUCIALS below 12 valid points, DEGENERATE_GEOMETRY for coplanar points,
    CORRESPONDENCE_FAILED if the phantom would lie behind the source, because the image is mirrored
    or its axes are exchanged, POSE_NOT_CONVERGED if the rms exceeds 2 px. Points that are not valid
    have no influence, also if they are NaN.
    """
    pixels, points = (jnp.where(valid[:, None], each, 0.0) for each in (pixels, points))
    K, pose = split_projection(projection_dlt(points, pixels, valid))
    weight = valid[:, None].astype(pixels.dtype)
    start = jnp.array([0.5 * (K[0, 0] + K[1, 1]), K[0, 2], K[1, 2]])
    unit = jnp.asarray(_UNITS)

    def unpack(x: Float[Array, "9"]) -> tuple[Matrix3, SE3]:
        step = x * unit
        inner = start + step[:3]
        twist = jnp.concatenate([step[6:], step[3:6]])
        return intrinsics(inner[0], inner[1:]), pose @ SE3.exp(twist)

    def residual(x: Float[Array, "9"]) -> Float[Array, " m"]:
        return (weight * (project_points(*unpack(x), points) - pixels)).reshape(-1)

    fit = levenberg_marquardt(residual, jnp.zeros(9), num_steps=num_steps)
    count = jnp.sum(valid)
    sigma = jnp.sqrt(2.0 * fit.cost / jnp.maximum(2 * count - 9, 1))
    covariance = jnp.linalg.inv(fit.jacobian.T @ fit.jacobian) * sigma**2
    covariance = covariance * unit[:, None] * unit[None, :]
    rms = jnp.sqrt(2.0 * fit.cost / jnp.maximum(count, 1))
    K, pose = unpack(fit.x)
    depth = jnp.where(valid, apply(pose, points)[:, 2], 1.0)
    in_front = jnp.all(depth > 0.0) & (K[0, 0] > 0.0)
    status = first_status(
        (StatusCode.TOO_FEW_FIDUCIALS, count < MIN_POINTS),
        (StatusCode.DEGENERATE_GEOMETRY, _is_flat(points, valid)),
        (StatusCode.POSE_NOT_CONVERGED, ~(rms < 2.0)),
        (StatusCode.CORRESPONDENCE_FAILED, ~in_front),
    )
    return CarmCalibration(K, pose, rms, covariance), status


def _is_flat(points: Points, valid: Bool[Array, " n"]) -> Bool[Array, ""]:
    weight = valid[:, None].astype(points.dtype)
    center = jnp.sum(weight * points, axis=0) / jnp.maximum(jnp.sum(valid), 1)
    extents = jnp.linalg.eigvalsh((weight * (points - center[None])).T @ (points - center[None]))
    return ~(extents[0] >= _MIN_SPREAD**2 * extents[2])
