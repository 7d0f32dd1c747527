"""Forward and inverse kinematics of the hybrid spine robot.

Source: [L] Li, Du, Yu, IEEE Access 8 (2020), equations 1-11. Two sliders drive a planar
five-bar (PRRRP) in the base's y-z plane: B = (-l11, 0) and D = (0, -l14) carry links of length
l12 and l13 that meet in the hinge C. An arm fixed to link CD ends in O3. From there a slider along
x (l3), a rotation about x (th4) and a rotation about y (th5) carry the tool, along which the K-wire
is fed. The hinge is solved in closed form; [L] gives only an implicit equation.

Joint positions q = (l11, l14, l3, th4, th5), mm and rad. A pose is (x, y, z, tilt_x, tilt_y): the
tool point in the base frame in mm, and the tool's rotation Rx(tilt_x) Ry(tilt_y). The wire
leaves the tool point along -z of the tool; the feed advances it in this direction.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dartjax._numerics import safe_norm
from dartjax._types import Point, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.transforms import SE3, SO3

JOINT_NAMES: tuple[str, ...] = ("l11", "l14", "l3", "th4", "th5", "feed")
Joints = Float[Array, "5"]
ToolPose = Float[Array, "5"]  # (x, y, z, tilt_x, tilt_y), mm and rad
Branch = tuple[int, int] | Float[Array, "2"]
Assembly = int | Float[Array, ""] | Int[Array, ""]  # the hinge: 1 as built, -1 mirrored
WORKING_BRANCH: Branch = (1, 1)

_LEAST_SINE = 0.05  # of the angles that vanish at a singularity: arm to reach, link to link
_GREATEST_RISE = 0.98  # largest height of the hinge, as a fraction of l12


class HybridRobot(eqx.Module):
    """Hybrid robot: structure parameters and joint limits, mm and rad, in the symbols of [L]."""

    l12: Scalar  # link from slider B to the hinge C
    l13: Scalar  # link from slider D to the hinge C
    L1: Scalar  # arm from the hinge to O3
    L2: Scalar  # tool point below the last axis
    gamma: Scalar  # angle from link CD to the arm
    theta: Scalar  # angle from the arm to the zero of th4
    d: Scalar  # tool point in front of the last axis
    lower: Float[Array, "6"]  # limits of (l11, l14, l3, th4, th5, feed)
    upper: Float[Array, "6"]


def spine_hybrid() -> HybridRobot:
    """Build the default hybrid robot.

    [L] prints no dimensions. These come from a search over 60,000 candidates for conditioning,
    stroke and compactness, rounded.
    """
    lengths = {"l12": 590.0, "l13": 440.0, "L1": 450.0, "L2": 220.0, "d": 70.0}
    angles = {"gamma": jnp.deg2rad(-30.0), "theta": jnp.deg2rad(-40.0)}
    turn4, turn5 = jnp.deg2rad(45.0), jnp.deg2rad(40.0)
    return HybridRobot(
        **{name: jnp.asarray(value, float) for name, value in (lengths | angles).items()},
        lower=jnp.array([230.0, 290.0, 360.0, -turn4, -turn5, 0.0]),
        upper=jnp.array([570.0, 930.0, 770.0, turn4, turn5, 80.0]),
    )


def hybrid_forward(
    q: Joints, robot: HybridRobot, *, assembly: Assembly = 1
) -> tuple[ToolPose, Status]:
    """Compute the pose of the tool from joint positions ([L] equation 10).

    `assembly` selects the side of the line BD on which the hinge lies: +1 as built, -1 mirrored.
    Status: BAD_PARAMETER (not finite, a length not positive) and UNREACHABLE_POSE (the links do not
    close) give NaN; SINGULAR_CONFIGURATION (the links nearly collinear) and JOINT_LIMIT still
    return the pose.
    """
    hinge_y, hinge_z, closes = _hinge(q, robot, assembly)
    _, l14, l3, th4, th5 = q
    th13 = jnp.arctan2(hinge_z + l14, hinge_y)
    tilt_x, tilt_y = th13 + robot.gamma + robot.theta + th4, -th5
    drop = hinge_drop(tilt_y, robot)
    pose = jnp.array(
        [
            l3 + robot.d * jnp.cos(th5) + robot.L2 * jnp.sin(th5),
            drop * jnp.sin(tilt_x) + hinge_y + robot.L1 * jnp.cos(th13 + robot.gamma),
            -drop * jnp.cos(tilt_x) + hinge_z + robot.L1 * jnp.sin(th13 + robot.gamma),
            tilt_x,
            tilt_y,
        ]
    )
    valid = _is_valid(q, robot)
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~valid),
        (StatusCode.UNREACHABLE_POSE, ~closes),
        (StatusCode.SINGULAR_CONFIGURATION, ~(closing_sine(q, robot) >= _LEAST_SINE)),
        (StatusCode.JOINT_LIMIT, ~jnp.all(limit_excess(q, robot) <= 0.0)),
    )
    return jnp.where(valid & closes, pose, jnp.nan), status


def hybrid_inverse(
    pose: ToolPose,
    robot: HybridRobot,
    *,
    branch: Branch = WORKING_BRANCH,
    assembly: Assembly = 1,
) -> tuple[Joints, Status]:
    """Compute the joint positions of a pose in closed form ([L] equation 11, completed).

    `branch` = (arm, slider), each +1 or -1, selects the side to which the arm bends and the side of
    slider B's link. Only (1, 1) is within the limits of `spine_hybrid`. `assembly` is that of
    `hybrid_forward`, which returns the pose from these joints. th4 and th5 are within +-pi.
    Status: BAD_PARAMETER and UNREACHABLE_POSE (too far, or this branch reaches the pose only with
    the hinge on the other side) give NaN; SINGULAR_CONFIGURATION (arm, slider link or the two links
    nearly straight) and JOINT_LIMIT still return the joints.
    """
    q, reach, rise = _inverse(pose, robot, branch)
    valid = _is_valid(pose, robot)
    sine = assembly * _signed_sine(q, _hinge_of(q, pose, robot), robot)
    reachable = (jnp.abs(reach) <= 1.0) & (jnp.abs(rise) <= 1.0) & (sine >= 0.0)
    is_straight = (reach**2 > 1.0 - _LEAST_SINE**2) | (jnp.abs(rise) > _GREATEST_RISE)
    is_straight |= sine < _LEAST_SINE
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~valid),
        (StatusCode.UNREACHABLE_POSE, ~reachable),
        (StatusCode.SINGULAR_CONFIGURATION, is_straight),
        (StatusCode.JOINT_LIMIT, ~jnp.all(limit_excess(q, robot) <= 0.0)),
    )
    return jnp.where(valid & reachable, q, jnp.nan), status


def hybrid_margins(
    pose: ToolPose, robot: HybridRobot, *, branch: Branch = WORKING_BRANCH, assembly: Assembly = 1
) -> Float[Array, "8"]:
    """Compute the margins of a pose to the robot's limits; all are positive for a reachable pose.

    The first two are margins of reach (1 - |reach| and 1 - |rise|, reduced near singularities). The
    next five are those of the joints, as fractions of half their range. The last is the sine of the
    angle between the two links, less its least value: negative near a singularity, and if the hinge
    is on the other side than `assembly` says. All are finite and differentiable for unreachable
    poses too, so that a base placement can be optimised from there.
    """
    q, reach, rise = _inverse(pose, robot, branch)
    straight = 1.0 - (1.0 - _LEAST_SINE**2) ** 0.5
    of_reach = jnp.array([1.0 - jnp.abs(reach) - straight, _GREATEST_RISE - jnp.abs(rise)])
    lower, upper = robot.lower[:5], robot.upper[:5]
    of_joints = jnp.minimum(q - lower, upper - q) / (0.5 * (upper - lower))
    sine = assembly * _signed_sine(q, _hinge_of(q, pose, robot), robot)
    return jnp.concatenate([of_reach, of_joints, sine[None] - _LEAST_SINE])


def reach_ratios(
    pose: ToolPose, robot: HybridRobot, *, branch: Branch = WORKING_BRANCH
) -> tuple[Scalar, Scalar]:
    """Compute (reach, rise): the arm's extension in y relative to the largest possible one, and the
    hinge's height relative to l12. A pose with a ratio beyond +-1 is unreachable."""
    _, reach, rise = _inverse(pose, robot, branch)
    return reach, rise


def closing_sine(q: Joints, robot: HybridRobot) -> Scalar:
    """Compute the sine of the angle between the two links, at least 0. At 0 the links are collinear
    and the configuration is singular."""
    hinge_y, hinge_z, closes = _hinge(q, robot, 1)
    sine = _signed_sine(q, (hinge_y, hinge_z), robot)
    return jnp.where(closes, jnp.abs(sine), 0.0)


def limit_excess(q: Float[Array, " joint"], robot: HybridRobot) -> Float[Array, " joint"]:
    """Compute the excess of each joint beyond its range, 0 within it; for the five joints, or six
    with the feed."""
    lower, upper = robot.lower[: len(q)], robot.upper[: len(q)]
    return jnp.maximum(jnp.maximum(lower - q, q - upper), 0.0)


def branch_of(q: Joints, robot: HybridRobot, *, assembly: Assembly = 1) -> Float[Array, "2"]:
    """Compute the branch with which `hybrid_inverse` returns these joint positions."""
    hinge_y, hinge_z, _ = _hinge(q, robot, assembly)
    _, bend = arm_triangle(robot)
    th13 = jnp.arctan2(hinge_z + q[1], hinge_y)
    signs = jnp.array([jnp.sin(th13 + bend), hinge_y + q[0]])
    return jnp.where(signs < 0.0, -1.0, 1.0)


def wire_direction(tilts: Float[Array, "2"]) -> Point:
    """Compute the unit vector of the wire's feed in the base frame, Rx Ry (0, 0, -1)."""
    x, y = tilts
    return jnp.array([-jnp.sin(y), jnp.sin(x) * jnp.cos(y), -jnp.cos(x) * jnp.cos(y)])


def wire_tip(pose: ToolPose, feed: Scalar | float) -> Point:
    """Compute the tip of the wire after a feed (mm), base frame."""
    return pose[:3] + feed * wire_direction(pose[3:])


def wire_pose(point: Point, direction: Point) -> ToolPose:
    """Compute the pose whose wire starts at `point` along a `direction` of any length, base frame.

    The rotation about the wire follows from the robot's axes. Directions with a component along +z
    (out of the patient) have no pose within limits. A direction of length 0 gives NaN tilts, which
    `hybrid_inverse` reports as BAD_PARAMETER.
    """
    length = safe_norm(direction)
    direction = direction / jnp.where(length > 0.0, length, jnp.nan)
    tilt_x = jnp.arctan2(direction[1], -direction[2])
    return jnp.concatenate(
        [point, jnp.array([tilt_x, -jnp.arcsin(jnp.clip(direction[0], -1.0, 1.0))])]
    )


def tool_frame(pose: ToolPose) -> SE3:
    """Compute T_base_tool of a pose: origin at the tool point, wire along -z."""
    rotation = SO3.from_x_radians(pose[3]) @ SO3.from_y_radians(pose[4])
    return SE3.from_rotation_and_translation(rotation, pose[:3])


def sample_joints(
    robot: HybridRobot, num_samples: int, *, key: Array
) -> tuple[Float[Array, "sample 5"], Float[Array, "sample 5"], Int[Array, " sample"]]:
    """Draw joint positions uniformly within limits; also returns their poses and statuses."""
    share = jax.random.uniform(key, (num_samples, 5), robot.lower.dtype)
    q = robot.lower[None, :5] + share * (robot.upper - robot.lower)[None, :5]
    poses, status = jax.vmap(lambda each: hybrid_forward(each, robot))(q)
    return q, poses, status


def _hinge(
    q: Joints, robot: HybridRobot, assembly: Assembly
) -> tuple[Scalar, Scalar, Bool[Array, ""]]:
    """Intersection of two circles: (y, z) of the hinge C, and whether the links close."""
    l11, l14 = q[0], q[1]
    squared = l11**2 + l14**2
    distinct = squared > 0.0
    base = jnp.sqrt(jnp.where(distinct, squared, 1.0))
    along = (robot.l13**2 - robot.l12**2 + squared) / (2.0 * base)
    height_squared = robot.l13**2 - along**2
    closes = distinct & (height_squared >= 0.0)
    height = assembly * jnp.sqrt(jnp.where(height_squared > 0.0, height_squared, 1.0))
    height = jnp.where(height_squared > 0.0, height, 0.0)
    y = (-along * l11 + height * l14) / base
    z = -l14 + (along * l14 + height * l11) / base
    return y, z, closes


def _hinge_of(q: Joints, pose: ToolPose, robot: HybridRobot) -> tuple[Scalar, Scalar]:
    """(y, z) of the hinge C, at the end of link CD, for joints that `_inverse` found."""
    th13 = pose[3] - q[3] - robot.gamma - robot.theta
    return robot.l13 * jnp.cos(th13), robot.l13 * jnp.sin(th13) - q[1]


def _signed_sine(q: Joints, hinge: tuple[Scalar, Scalar], robot: HybridRobot) -> Scalar:
    """Sine of the angle from link BC to link DC; its sign is that of the assembly."""
    y, z = hinge
    return ((y + q[0]) * (z + q[1]) - y * z) / (robot.l12 * robot.l13)


def _inverse(pose: ToolPose, robot: HybridRobot, branch: Branch) -> tuple[Joints, Scalar, Scalar]:
    """Joints, and the ratios of `reach_ratios`; finite also for unreachable poses."""
    arm_side, slider_side = branch[0], branch[1]
    x, y, z, tilt_x, tilt_y = pose
    drop = hinge_drop(tilt_y, robot)
    wrist_y, wrist_z = y - drop * jnp.sin(tilt_x), z + drop * jnp.cos(tilt_x)
    longest, bend = arm_triangle(robot)
    reach = wrist_y / longest
    th13 = -bend + arm_side * jnp.arccos(_within_one(reach))
    hinge_y = robot.l13 * jnp.cos(th13)
    hinge_z = wrist_z - robot.L1 * jnp.sin(th13 + robot.gamma)
    rise = hinge_z / robot.l12
    q = jnp.array(
        [
            -hinge_y + slider_side * robot.l12 * jnp.sqrt(1.0 - _within_one(rise) ** 2),
            robot.l13 * jnp.sin(th13) - hinge_z,
            x - robot.d * jnp.cos(tilt_y) + robot.L2 * jnp.sin(tilt_y),
            _wrapped(tilt_x - th13 - robot.gamma - robot.theta),
            _wrapped(-tilt_y),
        ]
    )
    return q, reach, rise


def hinge_drop(tilt_y: Scalar, robot: HybridRobot) -> Scalar:
    """Compute f1 of [L]: the distance from the last axis to the tool point, perpendicular to the
    axis."""
    return robot.L2 * jnp.cos(tilt_y) + robot.d * jnp.sin(tilt_y)


def arm_triangle(robot: HybridRobot) -> tuple[Scalar, Scalar]:
    """Compute (R, phi) with l13 cos(a) + L1 cos(a + gamma) = R cos(a + phi)."""
    across = robot.l13 + robot.L1 * jnp.cos(robot.gamma)
    up = robot.L1 * jnp.sin(robot.gamma)
    return jnp.hypot(across, up), jnp.arctan2(up, across)


def _wrapped(angle: Scalar) -> Scalar:
    """The same angle within +-pi."""
    return angle - 2.0 * jnp.pi * jnp.round(angle / (2.0 * jnp.pi))


def _within_one(ratio: Scalar) -> Scalar:
    """Clip a ratio inside +-1, where arccos and sqrt have no derivative; gradient 0 beyond."""
    most = 1.0 - 4.0 * jnp.finfo(ratio.dtype).eps
    return jnp.clip(ratio, -most, most)


def _is_valid(values: Float[Array, "5"], robot: HybridRobot) -> Bool[Array, ""]:
    lengths = jnp.array([robot.l12, robot.l13, robot.L1, robot.L2])
    angles = jnp.array([robot.gamma, robot.theta, robot.d])
    finite = jnp.isfinite(jnp.concatenate([values, lengths, angles]))
    return jnp.all(finite) & jnp.all(lengths > 0.0)
