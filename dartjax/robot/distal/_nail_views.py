"""Published estimators of the nail's pose from the ellipses of its two holes, [Y] section VI.

The fronto-parallel view has a closed form; the generic view uses 15 points. Both model a hole as a
flat circle.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._types import Matrix3, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot.carm import (
    Ellipse,
    Nail,
    agreeing_circles,
    bitangents,
    circle_poses,
    pnp_lm,
    tangent_points,
)
from dartjax.robot.distal._nail_pose import first_hole, fronto_parallel_pose
from dartjax.transforms import SE3, SO3

MIN_ASPECT = 0.97  # smallest aspect of a fronto-parallel view: 14 degrees
MAX_RMS_PX = 2.0
_TILTS_DEG = 6.0  # tilt of the initial estimates


def hole_plane(
    first: Ellipse, second: Ellipse, K: Matrix3, nail: Nail
) -> tuple[Float[Array, "3"], Float[Array, "2 3"], Float[Array, "2 2"]]:
    """Compute the plane of two holes from their ellipses.

    Returns the normal, the centres of the holes in the camera frame, and the pixels of the centres.
    """
    radius = nail.hole_radius
    normal, centers = agreeing_circles(
        circle_poses(first.conic, K, radius), circle_poses(second.conic, K, radius)
    )
    pixels = centers[:, :2] / centers[:, 2:] @ K[:2, :2].T + K[None, :2, 2]
    return normal, centers, pixels


def fronto_parallel_view(
    first: Ellipse, second: Ellipse, x_axis: Float[Array, "2"], K: Matrix3, nail: Nail
) -> tuple[SE3, Status]:
    """Estimate the nail's pose in a fronto-parallel view, in closed form.

    Status DEGENERATE_GEOMETRY (and a NaN pose) if `x_axis` does not decide which hole is the first
    (see `first_hole`); NOT_FRONTO_PARALLEL (with the pose) if the aspect ratio of an ellipse is
    below 0.97 or unknown.
    """
    pixels = jnp.stack([first.center, second.center])
    pose = fronto_parallel_pose(pixels, x_axis, K, nail)
    _, status = first_hole(pixels, x_axis)
    round_enough = (first.aspect >= MIN_ASPECT) & (second.aspect >= MIN_ASPECT)
    status = first_status(
        (StatusCode.DEGENERATE_GEOMETRY, status != StatusCode.OK),
        (StatusCode.NOT_FRONTO_PARALLEL, ~round_enough),
    )
    return pose, status


def generic_view(
    first: Ellipse, second: Ellipse, K: Matrix3, nail: Nail
) -> tuple[SE3, Scalar, Status]:
    """Estimate the nail's pose from 15 tangent points of both ellipses; `first` is the first hole.

    The order of the tangents is known, since an image never shows the nail mirrored. Least squares
    starts from five tilts and keeps the lowest cost. Also returns the rms in px. Status
    DEGENERATE_GEOMETRY if the ellipses overlap, POSE_NOT_CONVERGED if the rms exceeds 2 px. Near
    a fronto-parallel view the effect of tilt on the 15 points is only of second order, so the tilt
    is inaccurate (docs/distal_locking.md).
    """
    _, _, centers = hole_plane(first, second, K, nail)
    seen = tangent_points(centers, bitangents(first, second))
    model = tangent_points(*_template(nail))
    points = jnp.concatenate([model, jnp.zeros((15, 1))], axis=1)
    x_axis = first.center - second.center
    start = fronto_parallel_pose(jnp.stack([first.center, second.center]), x_axis, K, nail)
    tilts = jnp.deg2rad(_TILTS_DEG) * jnp.array([(0.01, 0.01), (1, 1), (1, -1), (-1, 1), (-1, -1)])

    def from_tilt(tilt: Float[Array, "2"]):
        turn = SO3.from_x_radians(tilt[0]) @ SO3.from_y_radians(tilt[1])
        T = start @ SE3.from_rotation(turn)
        return pnp_lm(seen, points, jnp.ones(15), K, T, num_steps=20)[0]

    fits = jax.vmap(from_tilt)(tilts)
    rms = jnp.where(jnp.isfinite(fits.rms_px), fits.rms_px, jnp.inf)
    best = jnp.argmin(rms)
    pose = jax.tree.map(lambda leaf: leaf[best], fits.T_camera_object)
    status = first_status(
        (StatusCode.DEGENERATE_GEOMETRY, ~jnp.all(jnp.isfinite(seen))),
        (StatusCode.POSE_NOT_CONVERGED, ~(rms[best] < MAX_RMS_PX)),
    )
    return pose, rms[best], status


def _template(nail: Nail) -> tuple[Array, tuple[Array, Array]]:
    """Centres of the holes and contacts of their tangents in the plane z = 0 of the nail. y is
    reversed for the order of the image, because the nail's z points to the source."""
    r, s = nail.hole_radius, nail.spacing
    centers = jnp.stack([jnp.zeros(2), jnp.array([-1.0, 0.0]) * s])
    shape = r**2 * jnp.eye(2)
    # In the image x right, y down the plane is seen as (x, -y).
    contacts = bitangents(Ellipse(centers[0], shape), Ellipse(centers[1], shape))
    flip = jnp.array([[1.0, -1.0]])
    return centers, (contacts[0] * flip, contacts[1] * flip)
