"""The parallel guide robot: a platform on six legs whose lengths are driven (6-6 Gough).

Source: [Y] Yaniv, Joskowicz, IEEE TMI 24 (2005) describes a bone-mounted robot of this kind
(5 x 5 x 7 cm, better than 0.1 mm) without its joints; the geometry here is a generic one of that
size. `T_base_platform` maps the platform's frame into the base's, mm; leg i runs from base joint
b_i to platform joint p_i and has the length |t + R p_i - b_i|.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax import transforms
from dartjax._numerics import safe_norm
from dartjax._types import Point, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.transforms import SE3, SO3

Legs = Float[Array, "6"]
_STAGES = 4  # of the way in leg lengths from the neutral pose
_STEPS = (2, 2, 2, 6)  # of Newton in each stage
_CLOSED_MM = 1e-6  # what may be left of a leg length, in float64
_GREATEST_CONDITION = 50.0


class GuideRobot(eqx.Module):
    """Joints of base and platform in their own frames, and the legs' range; mm."""

    base_joints: Float[Array, "6 3"]
    platform_joints: Float[Array, "6 3"]
    neutral_height: Scalar
    shortest_leg: Scalar
    longest_leg: Scalar


class ToolError(eqx.Module):
    """What leg errors do to a point fixed to the platform."""

    position_covariance: Float[Array, "3 3"]  # mm^2, base frame
    rotation_covariance: Float[Array, "3 3"]  # rad^2, turns about the base's axes
    position_rms_mm: Scalar
    rotation_rms_rad: Scalar


def bone_mounted_guide() -> GuideRobot:
    """A robot of the size of [Y]'s: base joints on a circle of 22 mm at 15 degrees to each side
    of 0, 120 and 240 degrees, platform joints on 16 mm about 60, 180 and 300, 50 mm above. Every
    leg goes to the platform joint 30 degrees on, alternately to either side."""
    return GuideRobot(
        base_joints=_on_circle(22.0, (-15.0, 15.0, 105.0, 135.0, 225.0, 255.0)),
        platform_joints=_on_circle(16.0, (-45.0, 45.0, 75.0, 165.0, 195.0, 285.0)),
        neutral_height=jnp.asarray(50.0, float),
        shortest_leg=jnp.asarray(39.0, float),
        longest_leg=jnp.asarray(67.0, float),
    )


def neutral_pose(robot: GuideRobot) -> SE3:
    """T_base_platform of the middle of the workspace: straight above the base."""
    height = robot.neutral_height
    above = jnp.stack([jnp.zeros_like(height), jnp.zeros_like(height), height])
    return SE3.from_rotation_and_translation(_no_turn(height), above)


def guide_inverse(T_base_platform: SE3, robot: GuideRobot) -> tuple[Legs, Status]:
    """Leg lengths of a pose in closed form.

    Status: BAD_PARAMETER (not finite) and UNREACHABLE_POSE (a leg of no length) give NaN;
    SINGULAR_CONFIGURATION (condition above 50) and JOINT_LIMIT leave the legs as they are.
    """
    legs = _leg_lengths(T_base_platform, robot)
    finite = jnp.all(jnp.isfinite(legs))
    has_length = jnp.all(legs > 0.0)
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~finite),
        (StatusCode.UNREACHABLE_POSE, ~has_length),
        (
            StatusCode.SINGULAR_CONFIGURATION,
            ~(guide_condition(T_base_platform, robot) < _GREATEST_CONDITION),
        ),
        (StatusCode.JOINT_LIMIT, jnp.any(leg_excess(legs, robot) > 0.0)),
    )
    return jnp.where(finite & has_length, legs, jnp.nan), status


def guide_forward(legs: Legs, robot: GuideRobot) -> tuple[SE3, Status]:
    """T_base_platform of six leg lengths, by Newton's method from the neutral pose.

    Six legs admit up to forty poses; the one wanted is that which the robot reaches from its
    neutral pose without passing a singularity. So the legs are changed in four stages, 12 Newton
    steps in all, and the sign of the Jacobian's determinant must stay that of the neutral pose.
    Status: BAD_PARAMETER (not finite) gives NaN; UNREACHABLE_POSE (legs not met, or the other
    side of a singularity) gives NaN; then SINGULAR_CONFIGURATION and JOINT_LIMIT.
    """
    start = neutral_pose(robot)
    neutral_legs = _leg_lengths(start, robot)
    side = jnp.sign(jnp.linalg.det(guide_jacobian(start, robot)))
    pose, same_side = start, jnp.asarray(True)
    for stage, steps in enumerate(_STEPS, 1):
        goal = neutral_legs + stage / _STAGES * (legs - neutral_legs)
        pose = jax.lax.fori_loop(0, steps, lambda _, T, goal=goal: _newton(T, goal, robot), pose)
        same_side &= jnp.sign(jnp.linalg.det(guide_jacobian(pose, robot))) == side
    left = jnp.max(jnp.abs(_leg_lengths(pose, robot) - legs))
    finite = jnp.all(jnp.isfinite(legs))
    closed = left <= jnp.maximum(_CLOSED_MM, 64.0 * jnp.finfo(legs.dtype).eps * jnp.max(legs))
    reached = closed & same_side
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~finite),
        (StatusCode.UNREACHABLE_POSE, ~reached),
        (
            StatusCode.SINGULAR_CONFIGURATION,
            ~(guide_condition(pose, robot) < _GREATEST_CONDITION),
        ),
        (StatusCode.JOINT_LIMIT, jnp.any(leg_excess(legs, robot) > 0.0)),
    )
    return _or_nan(pose, finite & reached), status


def guide_jacobian(T_base_platform: SE3, robot: GuideRobot) -> Float[Array, "6 6"]:
    """d legs / d (translation, rotation): columns are a shift of the platform's origin in mm and
    a turn about it in rad, both along the base's axes. Row i is (n_i, (R p_i) x n_i)."""
    arms = _turned_joints(T_base_platform, robot)
    along = arms + T_base_platform.translation()[None] - robot.base_joints
    along = along / jnp.linalg.norm(along, axis=1, keepdims=True)
    return jnp.concatenate([along, jnp.cross(arms, along)], axis=1)


def guide_condition(T_base_platform: SE3, robot: GuideRobot) -> Scalar:
    """Condition of the Jacobian with turns scaled by the radius of the platform's joints."""
    radius = jnp.mean(safe_norm(robot.platform_joints))
    scale = jnp.concatenate([jnp.ones(3), jnp.ones(3) / radius])
    return jnp.linalg.cond(guide_jacobian(T_base_platform, robot) * scale[None, :])


def guide_error(
    T_base_platform: SE3,
    robot: GuideRobot,
    leg_sigma_mm: Scalar | float,
    tool_point: Point | None = None,
) -> ToolError:
    """Error of a point of the platform frame (mm; default its origin) when every leg length has an
    independent error of `leg_sigma_mm`, to first order: J^-1 sigma^2 J^-T."""
    point = jnp.zeros(3) if tool_point is None else tool_point
    arm = T_base_platform.rotation().apply(point)
    spread = jnp.linalg.inv(guide_jacobian(T_base_platform, robot)) * leg_sigma_mm
    moves = spread[:3] + jnp.cross(spread[3:].T, arm[None]).T
    position, rotation = moves @ moves.T, spread[3:] @ spread[3:].T
    return ToolError(
        position, rotation, jnp.sqrt(jnp.trace(position)), jnp.sqrt(jnp.trace(rotation))
    )


def leg_excess(legs: Legs, robot: GuideRobot) -> Legs:
    """By how much each leg is beyond its range in mm, 0 within it."""
    return jnp.maximum(jnp.maximum(robot.shortest_leg - legs, legs - robot.longest_leg), 0.0)


def _newton(T_base_platform: SE3, goal: Legs, robot: GuideRobot) -> SE3:
    gap = goal - _leg_lengths(T_base_platform, robot)
    move = jnp.linalg.solve(guide_jacobian(T_base_platform, robot), gap)
    return transforms.perturb(T_base_platform, move[3:], move[:3])


def _leg_lengths(T_base_platform: SE3, robot: GuideRobot) -> Legs:
    arms = _turned_joints(T_base_platform, robot)
    return safe_norm(arms + T_base_platform.translation()[None] - robot.base_joints)


def _turned_joints(T_base_platform: SE3, robot: GuideRobot) -> Float[Array, "6 3"]:
    return robot.platform_joints @ T_base_platform.rotation().as_matrix().T


def _on_circle(radius: float, angles_deg: tuple[float, ...]) -> Float[Array, "6 3"]:
    angles = jnp.deg2rad(jnp.array(angles_deg))
    flat = jnp.zeros_like(angles)
    return jnp.stack([radius * jnp.cos(angles), radius * jnp.sin(angles), flat], axis=1)


def _no_turn(like: Scalar) -> SO3:
    return SO3.exp(jnp.zeros(3, like.dtype))


def _or_nan(pose: SE3, is_good: Bool[Array, ""]) -> SE3:
    return jax.tree.map(lambda leaf: jnp.where(is_good, leaf, jnp.nan), pose)
