"""Goal pose of the robot, guidance for turning the C-arm, and the error of the drill's axis."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._types import Scalar
from dartjax.robot._errors import BadParameter, Status, StatusCode, first_status
from dartjax.robot._reductions import least
from dartjax.robot.carm import HOLE_SPACING
from dartjax.robot.distal._nail_pose import tilt_deg, viewing_geometry
from dartjax.transforms import SE3, SO3

MIN_FACING = 0.2  # |cos| of the angle between hole axis and viewing direction


def goal_in_nail(T_camera_guide: SE3, T_camera_nail: SE3) -> tuple[SE3, Status]:
    """Compute T_nail_goal, the goal pose of the drill guide in the nail's frame.

    The orientation is that of the nail. The origin is on the axis of the first hole, at the guide's
    present distance from the source: (0, 0, l) with l = (z_guide - z_nail) / R_nail[2, 2].
    ([Y] prints the displacement in camera coordinates; equation 1 needs it in the nail's frame.)
    Status BAD_PARAMETER for a pose that is not finite, DEGENERATE_GEOMETRY if the holes are seen
    nearly from the side.
    """
    facing = T_camera_nail.rotation().as_matrix()[2, 2]
    drop = T_camera_guide.translation()[2] - T_camera_nail.translation()[2]
    height = drop / jnp.where(jnp.abs(facing) < 1e-6, 1e-6, facing)
    translation = jnp.array([0.0, 0.0, 1.0]) * height
    goal = SE3.from_rotation_and_translation(SO3.exp(jnp.zeros(3)), translation)
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~_is_finite(T_camera_guide) | ~_is_finite(T_camera_nail)),
        (StatusCode.DEGENERATE_GEOMETRY, ~(jnp.abs(facing) >= MIN_FACING)),
    )
    return goal, status


def required_tip(
    T_base_tip: SE3, T_tip_guide: SE3, T_camera_guide: SE3, T_camera_nail: SE3
) -> tuple[SE3, Status]:
    """Compute the pose T_base_tip that places the drill guide over the nail's holes.

    [Y] equation 1: T_base_goal = T_base_tip T_tip_guide T_guide_camera T_camera_nail T_nail_goal,
    and the tip's pose is T_base_goal T_guide_tip. Status as in `goal_in_nail`, and
    BAD_PARAMETER for any pose that is not finite.
    """
    goal, status = goal_in_nail(T_camera_guide, T_camera_nail)
    T_base_camera = T_base_tip @ T_tip_guide @ T_camera_guide.inverse()
    T_base_goal = T_base_camera @ T_camera_nail @ goal
    is_finite = _is_finite(T_base_tip) & _is_finite(T_tip_guide)
    status = jnp.where(is_finite, status, jnp.int32(StatusCode.BAD_PARAMETER))
    return T_base_goal @ T_tip_guide.inverse(), status


def _is_finite(pose: SE3) -> Bool[Array, ""]:
    return jnp.all(jnp.isfinite(pose.as_matrix()))


class TurnAdvice(NamedTuple):
    """Rotation of the C-arm to a view straight through the holes."""

    tilt_deg: float  # between the holes' axis and the ray to them
    about_x_deg: float  # rotation of the C-arm about the image's horizontal axis
    about_y_deg: float  # and about its vertical axis
    text: str


def turn_advice(T_camera_nail: SE3, *, good_enough_deg: float = 0.5) -> TurnAdvice:
    """Compute how to turn the C-arm to a fronto-parallel view, from the nail's pose. Host.

    The two angles form the rotation vector, in the camera's frame, that maps the viewing ray to the
    holes' axis. Rotate source and detector together about the nail by it. Raises BadParameter for a
    pose that is not finite.
    """
    _check_finite(T_camera_nail)
    axis, ray = viewing_geometry(T_camera_nail)
    tilt = tilt_deg(T_camera_nail)
    normal = np.cross(ray, axis)
    length = np.linalg.norm(normal)
    turn = normal / length * tilt if length > 1e-9 else np.zeros(3)
    if tilt < good_enough_deg:
        text = f"the view is straight through the holes (within {tilt:.1f} deg): use it"
    else:
        text = (
            f"turn the C-arm by {turn[0]:+.1f} deg about the image's x and {turn[1]:+.1f} about y"
        )
    return TurnAdvice(tilt, float(turn[0]), float(turn[1]), text)


def circle_guidance(normal: Float[Array, "3"], aspects: Float[Array, "2"]) -> tuple[Scalar, Scalar]:
    """Compute the guidance of [Y] for the operator.

    It consists of the smaller aspect ratio of the two ellipses, and the angle (rad) between the
    normal of the holes' plane and the beam. NaN if an aspect or the normal is.

    It is insensitive to small tilts: 3 degrees give an aspect of 0.9986.
    """
    angle = jnp.arccos(jnp.clip(jnp.abs(normal[2]) / jnp.linalg.norm(normal), 0.0, 1.0))
    return least(aspects), angle


class LockingError(NamedTuple):
    """Deviation of the drill's axes from the holes' axes: the metric of [Y], for both holes."""

    angle_deg: float
    entry_mm: float  # of the worse hole, in the plane where the drill enters
    exit_mm: float  # of the worse hole, in the plane where it leaves


def locking_error(
    T_nail_guide: SE3,
    *,
    planes: tuple[float, float] = (10.0, -10.0),
    hole_spacing: float = HOLE_SPACING,
) -> LockingError:
    """Compute the error of the drill guide's pose in the nail's frame. Host.

    It consists of the angle between the axes, and of the distances between each drill hole's axis
    and its hole's axis in two planes perpendicular to the holes, of which the larger one counts: a
    rotation about one hole moves the other. `planes` are heights above the nail's axis. [Y] uses
    planes at 100 and 120 mm from the robot's base with the nail between them, that is, 10 mm to
    each side. Infinite distances for a guide across the holes. Raises BadParameter for a pose that
    is not finite.
    """
    _check_finite(T_nail_guide)
    matrix = np.asarray(T_nail_guide.as_matrix(), float)
    axis = matrix[:3, 2]
    angle = np.degrees(np.arctan2(np.linalg.norm(axis[:2]), abs(axis[2])))
    if abs(axis[2]) < 1e-9:
        return LockingError(float(angle), np.inf, np.inf)
    holes = np.array([[0.0, 0.0, 0.0], [-hole_spacing, 0.0, 0.0]])
    points = holes @ matrix[:3, :3].T + matrix[:3, 3]
    steps = (np.asarray(planes)[:, None] - points[:, 2]) / axis[2]  # (plane, hole)
    off = points[None] + steps[:, :, None] * axis - holes
    entry, exit_ = np.linalg.norm(off[..., :2], axis=-1).max(axis=1)
    return LockingError(float(angle), float(entry), float(exit_))


def _check_finite(pose: SE3) -> None:
    if not np.isfinite(np.asarray(pose.as_matrix())).all():
        raise BadParameter("the pose is not finite: check the status of its estimate before use")
