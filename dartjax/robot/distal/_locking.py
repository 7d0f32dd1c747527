"""From measured poses to the robot's next pose, and to how the C-arm should be turned."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dartjax._types import Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot.distal._nail_pose import tilt_deg, viewing_geometry
from dartjax.transforms import SE3, SO3

MIN_FACING = 0.2  # |cos| of the angle between hole axis and viewing direction


def goal_in_nail(T_camera_guide: SE3, T_camera_nail: SE3) -> tuple[SE3, Status]:
    """T_nail_goal: where the drill guide should go, in the nail's frame.

    Same orientation as the nail; the origin on the axis of the first hole, as far from the source
    as the guide is now: (0, 0, l) with l = (z_guide - z_nail) / R_nail[2, 2]. ([Y] prints the
    displacement in camera coordinates; equation 1 needs it in the nail's.) DEGENERATE_GEOMETRY
    if the holes are seen nearly from the side.
    """
    facing = T_camera_nail.rotation().as_matrix()[2, 2]
    drop = T_camera_guide.translation()[2] - T_camera_nail.translation()[2]
    height = drop / jnp.where(jnp.abs(facing) < 1e-6, 1e-6, facing)
    translation = jnp.array([0.0, 0.0, 1.0]) * height
    goal = SE3.from_rotation_and_translation(SO3.exp(jnp.zeros(3)), translation)
    return goal, first_status((StatusCode.DEGENERATE_GEOMETRY, jnp.abs(facing) < MIN_FACING))


def required_tip(
    T_base_tip: SE3, T_tip_guide: SE3, T_camera_guide: SE3, T_camera_nail: SE3
) -> tuple[SE3, Status]:
    """Pose T_base_tip that brings the drill guide over the nail's holes.

    [Y] equation 1: T_base_goal = T_base_tip T_tip_guide T_guide_camera T_camera_nail T_nail_goal,
    and the tip goes to T_base_goal T_guide_tip.
    """
    goal, status = goal_in_nail(T_camera_guide, T_camera_nail)
    T_base_camera = T_base_tip @ T_tip_guide @ T_camera_guide.inverse()
    T_base_goal = T_base_camera @ T_camera_nail @ goal
    return T_base_goal @ T_tip_guide.inverse(), status


class TurnAdvice(NamedTuple):
    """How to turn the C-arm to look straight through the holes."""

    tilt_deg: float  # between the holes' axis and the ray to them
    about_x_deg: float  # turn the C-arm by this about the image's horizontal axis
    about_y_deg: float  # and by this about its vertical axis
    text: str


def turn_advice(T_camera_nail: SE3, *, good_enough_deg: float = 0.5) -> TurnAdvice:
    """Which way to turn the C-arm to a fronto-parallel view, from the nail's pose. Host.

    The two angles are the rotation vector, in the camera's frame, that brings the viewing ray
    onto the holes' axis: turn source and detector together, about the nail, by it.
    """
    axis, ray = viewing_geometry(T_camera_nail)
    tilt = tilt_deg(T_camera_nail)
    normal = np.cross(ray, axis)
    length = np.linalg.norm(normal)
    turn = normal / length * tilt if length > 1e-9 else np.zeros(3)
    if tilt < good_enough_deg:
        text = f"straight through the holes (within {tilt:.1f} deg): take this view"
    else:
        text = (
            f"turn the C-arm by {turn[0]:+.1f} deg about the image's x and {turn[1]:+.1f} about y"
        )
    return TurnAdvice(tilt, float(turn[0]), float(turn[1]), text)


def circle_guidance(normal: Float[Array, "3"], aspects: Float[Array, "2"]) -> tuple[Scalar, Scalar]:
    """What [Y] shows the operator: the slimmer ellipse's aspect ratio and the angle (rad) between
    the normal of the holes' plane and the beam. Blind below some degrees: 3 degrees of tilt are
    an aspect of 0.9986."""
    angle = jnp.arccos(jnp.clip(jnp.abs(normal[2]) / jnp.linalg.norm(normal), 0.0, 1.0))
    return jnp.min(aspects), angle


class LockingError(NamedTuple):
    """How far the drill's axis is from the hole's: the metric of [Y]."""

    angle_deg: float
    entry_mm: float  # in the plane where the drill enters the nail
    exit_mm: float


def locking_error(T_nail_guide: SE3, *, planes: tuple[float, float] = (6.0, -6.0)) -> LockingError:
    """Error of the drill guide's pose in the nail's frame: angle of the axes, and distance between
    where they cross two planes across the hole's axis (default: the nail's near and far side).
    Host."""
    matrix = np.asarray(T_nail_guide.as_matrix(), float)
    axis, point = matrix[:3, 2], matrix[:3, 3]
    angle = np.degrees(np.arctan2(np.linalg.norm(axis[:2]), abs(axis[2])))
    offsets = [np.linalg.norm((point + axis * (z - point[2]) / axis[2])[:2]) for z in planes]
    return LockingError(float(angle), float(offsets[0]), float(offsets[1]))
