"""Parallel guide robot: a platform on six legs of variable length (6-6 Gough platform).

Source: [Y] Yaniv, Joskowicz, IEEE TMI 24 (2005) describes a bone-mounted robot of this kind
(5 x 5 x 7 cm, better than 0.1 mm) but not the positions of its joints; the geometry here is a
generic one of that size. `T_base_platform` maps the platform's frame into the base's, mm; leg i
connects base joint b_i to platform joint p_i and has the length |t + R p_i - b_i|.
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
_STAGES = 4  # of the path in leg lengths from the neutral pose
_STEPS = (2, 2, 2, 6)  # Newton steps in each stage
_CLOSED_MM = 1e-6  # largest residual of a leg length, in float64
_GREATEST_CONDITION = 50.0
_SAME_POSE_MM = 0.1  # of the platform's joints: other assemblies are millimetres away


class GuideRobot(eqx.Module):
    """Geometry of the guide robot: joints of base and platform, and the legs' range; mm."""

    base_joints: Float[Array, "6 3"]
    platform_joints: Float[Array, "6 3"]
    neutral_height: Scalar
    shortest_leg: Scalar
    longest_leg: Scalar


class ToolError(eqx.Module):
    """Error of a point fixed to the platform, caused by leg errors."""

    position_covariance: Float[Array, "3 3"]  # mm^2, base frame
    rotation_covariance: Float[Array, "3 3"]  # rad^2, rotations about the base's axes
    position_rms_mm: Scalar
    rotation_rms_rad: Scalar


def bone_mounted_guide() -> GuideRobot:
    """Build a robot of the size of [Y]'s.

    Base joints lie on a circle of 22 mm, 15 degrees to each side of 0, 120 and 240 degrees.
    Platform joints lie on a circle of 16 mm near 60, 180 and 300 degrees, 50 mm above. Each leg
    connects to the platform joint 30 degrees further, in alternating directions.
    """
    return GuideRobot(
        base_joints=_on_circle(22.0, (-15.0, 15.0, 105.0, 135.0, 225.0, 255.0)),
        platform_joints=_on_circle(16.0, (-45.0, 45.0, 75.0, 165.0, 195.0, 285.0)),
        neutral_height=jnp.asarray(50.0, float),
        shortest_leg=jnp.asarray(39.0, float),
        longest_leg=jnp.asarray(67.0, float),
    )


def neutral_pose(robot: GuideRobot) -> SE3:
    """Return T_base_platform in the middle of the workspace: straight above the base."""
    height = robot.neutral_height
    above = jnp.stack([jnp.zeros_like(height), jnp.zeros_like(height), height])
    return SE3.from_rotation_and_translation(_identity_rotation(height), above)


def guide_inverse(T_base_platform: SE3, robot: GuideRobot) -> tuple[Legs, Status]:
    """Compute the leg lengths of a pose in closed form.

    Status: BAD_PARAMETER (not finite) and UNREACHABLE_POSE (a leg of length 0, or `guide_forward`
    reaches another pose with these legs) give NaN; SINGULAR_CONFIGURATION (condition above 50) and
    JOINT_LIMIT still return the legs.
    """
    legs = _leg_lengths(T_base_platform, robot)
    finite = jnp.all(jnp.isfinite(legs))
    has_length = jnp.all(legs > 0.0)
    is_singular = ~(guide_condition(T_base_platform, robot) < _GREATEST_CONDITION)
    is_reached = has_length & (is_singular | _returns(legs, T_base_platform, robot))
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~finite),
        (StatusCode.UNREACHABLE_POSE, ~is_reached),
        (StatusCode.SINGULAR_CONFIGURATION, is_singular),
        (StatusCode.JOINT_LIMIT, ~jnp.all(leg_excess(legs, robot) <= 0.0)),
    )
    return jnp.where(finite & is_reached, legs, jnp.nan), status


def guide_forward(legs: Legs, robot: GuideRobot) -> tuple[SE3, Status]:
    """Compute T_base_platform from six leg lengths, by Newton's method from the neutral pose.

    Six legs admit up to forty poses; the result is the one that the robot reaches from its neutral
    pose without passing a singularity. The legs therefore change in four stages, with 12 Newton
    steps in total, and the sign of the Jacobian's determinant must not change.
    Status: BAD_PARAMETER (not finite) and UNREACHABLE_POSE (no convergence, or beyond a
    singularity) give NaN; SINGULAR_CONFIGURATION and JOINT_LIMIT still return the pose.
    """
    start = neutral_pose(robot)
    neutral_legs = _leg_lengths(start, robot)
    side = jnp.sign(jnp.linalg.det(guide_jacobian(start, robot)))
    pose, same_side = start, jnp.asarray(True)
    for stage, steps in enumerate(_STEPS, 1):
        goal = neutral_legs + stage / _STAGES * (legs - neutral_legs)
        pose = jax.lax.fori_loop(0, steps, lambda _, T, goal=goal: _newton(T, goal, robot), pose)
        same_side &= jnp.sign(jnp.linalg.det(guide_jacobian(pose, robot))) == side
    residual = jnp.abs(_leg_lengths(pose, robot) - legs)
    finite = jnp.all(jnp.isfinite(legs))
    converged = jnp.all(
        residual <= jnp.maximum(_CLOSED_MM, 64.0 * jnp.finfo(legs.dtype).eps * jnp.max(legs))
    )
    reached = converged & same_side
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~finite),
        (StatusCode.UNREACHABLE_POSE, ~reached),
        (
            StatusCode.SINGULAR_CONFIGURATION,
            ~(guide_condition(pose, robot) < _GREATEST_CONDITION),
        ),
        (StatusCode.JOINT_LIMIT, ~jnp.all(leg_excess(legs, robot) <= 0.0)),
    )
    return _or_nan(pose, finite & reached), status


def guide_jacobian(T_base_platform: SE3, robot: GuideRobot) -> Float[Array, "6 6"]:
    """Compute d legs / d (translation, rotation).

    Columns are a shift of the platform's origin (mm) and a rotation about it (rad), both along the
    base's axes. Row i is (n_i, (R p_i) x n_i), with n_i the direction of leg i.
    """
    arms = _rotated_joints(T_base_platform, robot)
    along = arms + T_base_platform.translation()[None] - robot.base_joints
    along = along / jnp.linalg.norm(along, axis=1, keepdims=True)
    return jnp.concatenate([along, jnp.cross(arms, along)], axis=1)


def guide_condition(T_base_platform: SE3, robot: GuideRobot) -> Scalar:
    """Compute the condition of the Jacobian, with rotations scaled by the radius of the platform's
    joints."""
    radius = jnp.mean(safe_norm(robot.platform_joints))
    scale = jnp.concatenate([jnp.ones(3), jnp.ones(3) / radius])
    return jnp.linalg.cond(guide_jacobian(T_base_platform, robot) * scale[None, :])


def guide_error(
    T_base_platform: SE3,
    robot: GuideRobot,
    leg_sigma_mm: Scalar | float,
    tool_point: Point | None = None,
) -> ToolError:
    """Propagate leg errors to a point of the platform frame (mm; default its origin).

    Every leg length has an independent error of `leg_sigma_mm`. First order: J^-1 sigma^2 J^-T.
    """
    point = jnp.zeros(3) if tool_point is None else tool_point
    arm = T_base_platform.rotation().apply(point)
    spread = jnp.linalg.inv(guide_jacobian(T_base_platform, robot)) * leg_sigma_mm
    moves = spread[:3] + jnp.cross(spread[3:].T, arm[None]).T
    position, rotation = moves @ moves.T, spread[3:] @ spread[3:].T
    return ToolError(
        position, rotation, jnp.sqrt(jnp.trace(position)), jnp.sqrt(jnp.trace(rotation))
    )


def leg_excess(legs: Legs, robot: GuideRobot) -> Legs:
    """Compute the excess of each leg beyond its range, mm; 0 within the range."""
    return jnp.maximum(jnp.maximum(robot.shortest_leg - legs, legs - robot.longest_leg), 0.0)


def _returns(legs: Legs, T_base_platform: SE3, robot: GuideRobot) -> Bool[Array, ""]:
    """Whether the forward kinematics of these legs is this pose, by the platform's joints."""
    legs, wanted = jax.lax.stop_gradient((legs, T_base_platform))
    found, _ = guide_forward(legs, robot)
    gap = transforms.apply(found, robot.platform_joints) - transforms.apply(
        wanted, robot.platform_joints
    )
    return jnp.all(jnp.abs(gap) < _SAME_POSE_MM)  # a maximum may drop NaN on CPU


def _newton(T_base_platform: SE3, goal: Legs, robot: GuideRobot) -> SE3:
    gap = goal - _leg_lengths(T_base_platform, robot)
    move = jnp.linalg.solve(guide_jacobian(T_base_platform, robot), gap)
    return transforms.perturb(T_base_platform, move[3:], move[:3])


def _leg_lengths(T_base_platform: SE3, robot: GuideRobot) -> Legs:
    arms = _rotated_joints(T_base_platform, robot)
    return safe_norm(arms + T_base_platform.translation()[None] - robot.base_joints)


def _rotated_joints(T_base_platform: SE3, robot: GuideRobot) -> Float[Array, "6 3"]:
    return robot.platform_joints @ T_base_platform.rotation().as_matrix().T


def _on_circle(radius: float, angles_deg: tuple[float, ...]) -> Float[Array, "6 3"]:
    angles = jnp.deg2rad(jnp.array(angles_deg))
    flat = jnp.zeros_like(angles)
    return jnp.stack([radius * jnp.cos(angles), radius * jnp.sin(angles), flat], axis=1)


def _identity_rotation(like: Scalar) -> SO3:
    return SO3.exp(jnp.zeros(3, like.dtype))


def _or_nan(pose: SE3, is_good: Bool[Array, ""]) -> SE3:
    return jax.tree.map(lambda leaf: jnp.where(is_good, leaf, jnp.nan), pose)
