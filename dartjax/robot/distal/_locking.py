"""Goal pose of the robot, guidance for turning the C-arm, and the error of the drill's axis."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._types import Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
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
    holes' axis. Rotate source and detector together about the nail by it.
    """
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
    normal of the holes' plane and the beam.

    It is insensitive to small tilts: 3 degrees give an aspect of 0.9986.
    """
    angle = jnp.arccos(jnp.clip(jnp.abs(normal[2]) / jnp.linalg.norm(normal), 0.0, 1.0))
    return jnp.min(aspects), angle


class LockingError(NamedTuple):
    """Deviation of the drill's axis from the hole's axis: the metric of [Y]."""

    angle_deg: float
    entry_mm: float  # in the plane where the drill enters the nail
    exit_mm: float


def locking_error(T_nail_guide: SE3, *, planes: tuple[float, float] = (6.0, -6.0)) -> LockingError:
    """Compute the error of the drill guide's pose in the nail's frame. Host.

    It consists of the angle between the axes, and their distances in two planes perpendicular to
    the hole's axis (default: the near and the far side of the nail).
    """
    matrix = np.asarray(T_nail_guide.as_matrix(), float)
    axis, point = matrix[:3, 2], matrix[:3, 3]
    angle = np.degrees(np.arctan2(np.linalg.norm(axis[:2]), abs(axis[2])))
    offsets = [np.linalg.norm((point + axis * (z - point[2]) / axis[2])[:2]) for z in planes]
    return LockingError(float(angle), float(offsets[0]), float(offsets[1]))
