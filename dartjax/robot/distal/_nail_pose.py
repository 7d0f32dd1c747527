"""Pose of the nail from one image, with each hole modelled as a tunnel through a round nail.

Frame of the nail: z is the axis of the first hole and points to the source, x is along the nail,
and the second hole is at x = -30 mm. All pixels are ideal (undistorted).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._numerics import safe_norm
from dartjax._types import Matrix3, Pixels, Points, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot.carm import HOLE_SPACING, Nail, fit_pose, to_slopes
from dartjax.transforms import SE3, SO3

# Depth of metal at which a tunnel's wall appears as an edge, mm: the mean depth 1 / mu of the beam
# in steel at 80 kV. The visible rims lie that deep under the nail's surface.
EDGE_DEPTH = 1.0
BLUR_PX = 1.1  # sigma of the blur, which moves the edge of a small bright disc inward
MAX_RMS_PX = 0.6
_STARTS_DEG = 4.0  # tilt of the initial estimates
_OUTLIER_PX = 1.5
_SHIFT_WEIGHT = 1.5  # of the prior of the common edge shift: sigma 0.1 px at a noise of 0.15 px
_UNITS = (1.0, 1.0, 1.0, 0.01, 0.01, 0.01)
_LEAST_COSINE = 0.17  # between x axis and line of holes; nearer to 90 deg the order is not known


class EdgePoints(eqx.Module):
    """Edge pixels of the nail with validity masks: around each hole, and on both sides."""

    hole: Float[Array, "2 ray 2"]
    hole_valid: Bool[Array, "2 ray"]
    contour: Float[Array, "2 station 2"]
    contour_valid: Bool[Array, "2 station"]


class NailFit(eqx.Module):
    """Estimated pose of the nail with its uncertainty.

    `covariance` is that of (translation, rotation) in mm and rad for the step T exp(step).
    `runner_up` is the cost of the best fit with another tilt over that of the best fit; near 1 the
    direction of the tilt is ambiguous.
    """

    T_camera_nail: SE3
    covariance: Float[Array, "6 6"]
    rms_px: Scalar
    inliers: Scalar  # fraction of the edge points
    edge_shift_px: Float[Array, "2"]  # common outward shift of hole edges and contour
    runner_up: Scalar


def nail_residual(
    T: SE3, edges: EdgePoints, K: Matrix3, nail: Nail, shift_px: Float[Array, "2"] | None = None
) -> Float[Array, " m"]:
    """Compute the distances (px) of edge points from the edges predicted by the pose T_camera_nail.

    A ray passes a hole if it is inside both rims. The rims lie on the nail's cylinder: the ray of
    an edge point is intersected with the cylinder, and the larger of the two distances from the
    hole's axis must equal the hole's radius. The ray of a contour point is tangent to the cylinder.
    `shift_px` is a common outward shift of the edges of holes and contour, as caused by saturation.
    """
    shift_px = jnp.zeros(2) if shift_px is None else shift_px
    middle = K[:2, 2][None, None]  # in place of pixels that are not valid, which may be NaN
    pixels = jnp.where(edges.hole_valid[..., None], edges.hole, middle)
    contour_pixels = jnp.where(edges.contour_valid[..., None], edges.contour, middle)
    rotation = T.rotation().as_matrix()
    source = -rotation.T @ T.translation()
    per_mm = K[0, 0] / T.translation()[2]
    hole_distances = [
        _beyond_rims(_rays(pixels[i], K, rotation), source, nail.hole_centers[i, 0], nail)
        for i in (0, 1)
    ]
    # Mean depth of the beam under the contour, where its path through metal is a chord.
    silhouette = nail.radius - EDGE_DEPTH**2 / (4.0 * nail.radius)
    contour_distances = _beyond_contour(
        _rays(contour_pixels.reshape(-1, 2), K, rotation), source, silhouette
    )
    inward = 0.5 * BLUR_PX**2 / (nail.hole_radius * per_mm)
    hole = jnp.where(
        edges.hole_valid, jnp.stack(hole_distances) * per_mm + inward - shift_px[0], 0.0
    )
    contour = jnp.where(
        edges.contour_valid.reshape(-1), contour_distances * per_mm - shift_px[1], 0.0
    )
    return jnp.concatenate([hole.reshape(-1), contour])


def _rays(pixels: Pixels, K: Matrix3, rotation: Matrix3) -> Points:
    slopes = to_slopes(K, pixels)
    rays = jnp.concatenate([slopes, jnp.ones_like(slopes[:, :1])], axis=1)
    return rays @ rotation


def _beyond_rims(rays: Points, source: Float[Array, "3"], x: Scalar, nail: Nail) -> Array:
    """Distance (mm) by which rays pass outside the rims of the hole at x; negative inside both."""
    radius = nail.radius - EDGE_DEPTH
    a = rays[:, 1] ** 2 + rays[:, 2] ** 2
    b = source[1] * rays[:, 1] + source[2] * rays[:, 2]
    c = source[1] ** 2 + source[2] ** 2 - radius**2
    root = jnp.sqrt(jnp.maximum(b**2 - a * c, 1e-6 * b**2))
    distance = []
    for t in ((-b - root) / a, (-b + root) / a):
        at = source[None] + t[:, None] * rays
        distance.append(jnp.sqrt((at[:, 0] - x) ** 2 + at[:, 1] ** 2 + 1e-9))
    return jnp.maximum(*distance) - nail.hole_radius


def _beyond_contour(rays: Points, source: Float[Array, "3"], radius: Scalar) -> Array:
    """Distance (mm) of rays from the nail's axis, which is the x-axis, minus its radius."""
    across = rays[:, 1:] / jnp.linalg.norm(rays[:, 1:], axis=1, keepdims=True)
    return jnp.abs(source[1] * across[:, 1] - source[2] * across[:, 0]) - radius


def first_hole(
    holes: Float[Array, "2 2"], x_axis: Float[Array, "2"]
) -> tuple[Bool[Array, ""], Status]:
    """Decide which of two holes is the first: whether to swap them, so that the line from the
    second to the first is along `x_axis`, the image direction of the nail's x.

    Status DEGENERATE_GEOMETRY if the line is within 10 degrees of perpendicular to `x_axis`, or a
    number is not finite: then nothing decides, and `swap` is false.
    """
    along = jnp.sum((holes[0] - holes[1]) * x_axis)
    lengths = safe_norm(holes[0] - holes[1]) * safe_norm(x_axis)
    is_clear = (jnp.abs(along) >= _LEAST_COSINE * lengths) & (lengths > 0.0)
    status = first_status((StatusCode.DEGENERATE_GEOMETRY, ~is_clear))
    return is_clear & (along < 0.0), status


def fronto_parallel_pose(
    holes: Float[Array, "2 2"], x_axis: Float[Array, "2"], K: Matrix3, nail: Nail
) -> SE3:
    """Compute the pose of a nail in a view straight through its holes, from their centres.

    The hole further along `x_axis` (image direction of the nail's x, from the drill guide) is the
    first. R = [[a, b, 0], [b, -a, 0], [0, 0, -1]] with (a, b) the direction from the second to
    the first hole; the depth follows from the spacing, z = f 30 / |p - q|. This is [Y] section VI B
    with the missing normalisation. In a view straight through, the axes of the holes are parallel
    to the ray to the middle between them, so R is rotated onto that ray. For holes in the middle of
    the image this is [Y]'s formula. NaN if `x_axis` does not decide between the holes: see
    `first_hole`.
    """
    swap, status = first_hole(holes, x_axis)
    p, q = jnp.where(swap, holes[::-1], holes)
    a, b = (p - q) / jnp.linalg.norm(p - q)
    rotation = jnp.array([[a, b, 0.0], [b, -a, 0.0], [0.0, 0.0, -1.0]])
    x, y = to_slopes(K, 0.5 * (p + q)[None])[0]
    onto_ray = SO3.exp(jnp.array([-y, x, 0.0]))  # a few degrees: slope and angle are the same
    depth = K[0, 0] * nail.spacing / jnp.linalg.norm(p - q)
    position = depth * jnp.append(to_slopes(K, p[None])[0], 1.0)
    pose = SE3.from_rotation_and_translation(onto_ray @ SO3.from_matrix(rotation), position)
    return jax.tree.map(lambda leaf: jnp.where(status == StatusCode.OK, leaf, jnp.nan), pose)


def through_hole_pose(
    edges: EdgePoints, start: SE3, K: Matrix3, nail: Nail, *, num_steps: int = 10
) -> tuple[NailFit, Status]:
    """Estimate the nail's pose from the edges of its holes and its contour.

    `start` is a fronto-parallel initial estimate with the same first hole as `edges`. A tilted hole
    appears as a lens bounded by both rims, which determines the size of the tilt; its direction
    follows only from the nearer rim being 2 % larger. The fit therefore starts from four tilts and
    keeps the best. Status POSE_NOT_CONVERGED above 0.6 px rms; TOO_FEW_FIDUCIALS if a hole has less
    than 40 % of its edges as inliers; DETECTION_FAILED if less than 70 % of all edges are inliers.
    """
    signs = jnp.asarray([(1, 1), (1, -1), (-1, 1), (-1, -1)], float)

    def distances(T: SE3, shift: Float[Array, "2"]) -> Float[Array, " m"]:
        return nail_residual(T, edges, K, nail, shift)

    def robust_residual(T: SE3, shift: Float[Array, "2"]) -> Float[Array, " m"]:
        r = distances(T, shift)
        return jnp.append(r / jnp.sqrt(1.0 + (r / _OUTLIER_PX) ** 2), _SHIFT_WEIGHT * shift)

    def from_tilt(sign: Float[Array, "2"]) -> tuple[SE3, Float[Array, "2"], Scalar]:
        x, y = jnp.deg2rad(_STARTS_DEG) * sign
        T = start @ SE3.from_rotation(SO3.from_x_radians(x) @ SO3.from_y_radians(y))
        T, shift, _, cost = fit_pose(robust_residual, T, jnp.zeros(2), num_steps=num_steps)
        return T, shift, cost

    poses, shifts, costs = jax.vmap(from_tilt)(signs)
    costs = jnp.where(jnp.isfinite(costs), costs, jnp.inf)
    best = jnp.argmin(costs)
    T, shift = jax.tree.map(lambda leaf: leaf[best], (poses, shifts))
    valid = jnp.concatenate([edges.hole_valid.reshape(-1), edges.contour_valid.reshape(-1)])
    distance = jnp.abs(distances(T, shift))
    spread = jnp.nanmedian(jnp.where(valid, distance, jnp.nan))
    inlier = valid & (distance < jnp.clip(4.0 * spread, 0.3, _OUTLIER_PX))

    def inlier_residual(T: SE3, shift: Float[Array, "2"]) -> Float[Array, " m"]:
        return jnp.append(jnp.where(inlier, distances(T, shift), 0.0), _SHIFT_WEIGHT * shift)

    T, shift, normal, cost = fit_pose(inlier_residual, T, shift, num_steps=4)
    count = jnp.sum(inlier)
    rms = jnp.sqrt(2.0 * cost / jnp.maximum(count, 1))
    unit = jnp.asarray(_UNITS)
    covariance = jnp.linalg.inv(normal + 1e-9 * jnp.eye(8))[:6, :6] * rms**2
    covariance = covariance * unit[:, None] * unit[None]
    tilt = jax.vmap(lambda pose: pose.rotation().as_matrix()[:, 2])(poses)
    other = jnp.linalg.norm(tilt - tilt[best][None], axis=1) > 0.01
    runner_up = jnp.min(jnp.where(other, costs, jnp.inf)) / jnp.maximum(costs[best], 1e-12)
    share = count / jnp.maximum(jnp.sum(valid), 1)
    num_rays = edges.hole_valid.shape[1]
    status = first_status(
        (
            StatusCode.TOO_FEW_FIDUCIALS,
            jnp.min(jnp.sum(inlier[: 2 * num_rays].reshape(2, -1), axis=1)) < 0.4 * num_rays,
        ),
        (StatusCode.POSE_NOT_CONVERGED, ~(rms < MAX_RMS_PX)),
        (StatusCode.DETECTION_FAILED, ~(share > 0.7)),
    )
    return NailFit(T, covariance, rms, share, shift, runner_up), status


def unblocked(edges: EdgePoints, centers: Pixels, hidden_px: Scalar | float) -> EdgePoints:
    """Mask the edges that balls of the drill guide hide or disturb.

    `centers` are the pixels of the balls, projected with the guide's pose; `hidden_px` is the
    radius of their shadows.
    """
    valid = edges.hole_valid[..., None]
    count = jnp.maximum(jnp.sum(valid, axis=1, keepdims=True), 1)
    middle = jnp.sum(jnp.where(valid, edges.hole, 0.0), axis=1, keepdims=True) / count
    near = _distance_to_segments(edges.hole, middle, centers) < hidden_px + 2.0
    distance = jnp.linalg.norm(edges.contour[:, :, None] - centers[None, None], axis=-1)
    return EdgePoints(
        edges.hole,
        edges.hole_valid & ~jnp.any(near, axis=-1),
        edges.contour,
        edges.contour_valid & ~jnp.any(distance < hidden_px + 2.5, axis=-1),
    )


def _distance_to_segments(
    points: Float[Array, "2 ray 2"], middle: Float[Array, "2 1 2"], centers: Pixels
) -> Array:
    """Distance of balls from the outer half of each ray from a hole's centre to its edge."""
    start = 0.5 * (points + middle)
    along = points - start
    offset = centers[None, None] - start[:, :, None]
    length = jnp.maximum(jnp.sum(along**2, axis=-1), 1e-9)[..., None]
    share = jnp.clip(jnp.sum(offset * along[:, :, None], axis=-1) / length, 0.0, 1.0)
    return jnp.linalg.norm(offset - share[..., None] * along[:, :, None], axis=-1)


def tilt_deg(T_camera_nail: SE3) -> float:
    """Compute the angle (degrees) between the holes' axes and the ray to the middle between them.

    0 is a view straight through the holes; NaN for a pose that is not finite. Host.
    """
    axis, ray = viewing_geometry(T_camera_nail)
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(axis, ray)), axis @ ray)))


def viewing_geometry(T_camera_nail: SE3) -> tuple[np.ndarray, np.ndarray]:
    """Compute the holes' axis, away from the source, and the ray from the source to the middle
    between the holes: unit vectors in the camera frame. Host."""
    matrix = np.asarray(T_camera_nail.as_matrix(), float)
    middle = matrix[:3] @ np.array([-0.5 * HOLE_SPACING, 0.0, 0.0, 1.0])
    return -matrix[:3, 2], middle / np.linalg.norm(middle)
