"""Kinematics on the host with named errors: which joint or value is wrong, and what to do.

Wrappers for scripts: they check shape, unit and finiteness, call the pure function and raise the
error of its status. Inside jit use the pure functions.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dartjax.robot._errors import BadParameter, StatusCode, raise_for_status
from dartjax.robot.arms._chain import SerialChain, chain_excess, chain_forward
from dartjax.robot.arms._chain_inverse import solve_levenberg_marquardt
from dartjax.robot.arms._guide_robot import (
    GuideRobot,
    guide_condition,
    guide_forward,
    guide_inverse,
    leg_excess,
)
from dartjax.robot.arms._hybrid import (
    JOINT_NAMES,
    WORKING_BRANCH,
    Assembly,
    Branch,
    HybridRobot,
    Joints,
    ToolPose,
    closing_sine,
    hybrid_forward,
    hybrid_inverse,
    limit_excess,
    reach_ratios,
)
from dartjax.robot.arms._hybrid_calibration import (
    HybridCalibration,
    calibrate_from_points,
    tool_points,
)
from dartjax.transforms import SE3

Numbers = Sequence[float | int] | Float[np.ndarray, "..."] | Float[Array, "..."]
_POSE_NAMES = ("x", "y", "z", "tilt_x", "tilt_y")
_LENGTH_NAMES = ("l12", "l13", "L1", "L2")
_LEAST_LENGTH_MM = 5.0  # a shorter link indicates metres
_GREATEST_ANGLE = 2.0 * np.pi

_hybrid_forward = jax.jit(hybrid_forward)
_hybrid_inverse = jax.jit(hybrid_inverse)
_reach_ratios = jax.jit(reach_ratios)
_guide_forward, _guide_inverse = jax.jit(guide_forward), jax.jit(guide_inverse)
_chain_forward = jax.jit(chain_forward)
_chain_inverse = jax.jit(solve_levenberg_marquardt)
_calibrate, _tool_points = jax.jit(calibrate_from_points), jax.jit(tool_points)


def checked_hybrid_forward(q: Numbers, robot: HybridRobot) -> ToolPose:
    """Call `hybrid_forward`; raise BadParameter, UnreachablePose, SingularConfiguration or
    JointLimit with the joint and its value."""
    _check_robot(robot)
    joints = _checked_array(q, JOINT_NAMES[:5], "joint", angles=("th4", "th5"))
    pose, status = _hybrid_forward(joints, robot)
    problem = {
        StatusCode.UNREACHABLE_POSE: f"the links do not close at l11 = {joints[0]:.1f}, "
        f"l14 = {joints[1]:.1f} mm: bring the sliders within their limits",
        StatusCode.SINGULAR_CONFIGURATION: f"the links are in line (sine of their angle "
        f"{float(closing_sine(joints, robot)):.3f}) at l11 = {joints[0]:.1f}, l14 = "
        f"{joints[1]:.1f} mm: change l11 or l14",
        StatusCode.JOINT_LIMIT: _limit_message(joints, robot),
    }
    raise_for_status(status, problem.get(StatusCode(int(status)), ""))
    return pose


def checked_hybrid_inverse(
    pose: Numbers, robot: HybridRobot, *, branch: Branch = WORKING_BRANCH, assembly: Assembly = 1
) -> Joints:
    """Call `hybrid_inverse`; raise BadParameter, UnreachablePose, SingularConfiguration or
    JointLimit with the axis or joint and its value."""
    _check_robot(robot)
    target = _checked_array(pose, _POSE_NAMES, "pose value", angles=("tilt_x", "tilt_y"))
    sides = jnp.asarray(branch, float)
    q, status = _hybrid_inverse(target, robot, branch=sides, assembly=assembly)
    reach, rise = (float(ratio) for ratio in _reach_ratios(target, robot, branch=sides))
    axis, ratio = ("y", reach) if abs(reach) > 1.0 else ("z", rise)
    out_of_reach = (
        f"the pose is out of reach along {axis} ({target[1]:.1f}, {target[2]:.1f} mm): "
        f"it needs {abs(ratio):.2f} of the greatest reach; move the base"
        if abs(ratio) > 1.0
        else f"the pose at (y, z) = ({target[1]:.1f}, {target[2]:.1f}) mm needs the hinge on the "
        "other side of the sliders, which the robot cannot reach: move the base"
    )
    problem = {
        StatusCode.UNREACHABLE_POSE: out_of_reach,
        StatusCode.SINGULAR_CONFIGURATION: f"a link is straight, or the links are in line "
        f"(reach {reach:.3f} along y, {rise:.3f} along z, of 1): move the base",
        StatusCode.JOINT_LIMIT: _limit_message(q, robot),
    }
    raise_for_status(status, problem.get(StatusCode(int(status)), ""))
    return q


def checked_guide_inverse(T_base_platform: SE3, robot: GuideRobot) -> Float[Array, "6"]:
    """Call `guide_inverse`; raise BadParameter, UnreachablePose, SingularConfiguration or
    JointLimit with the leg and its length."""
    _check_pose(T_base_platform)
    legs, status = _guide_inverse(T_base_platform, robot)
    _raise_for_legs(legs, T_base_platform, int(status), robot)
    return legs


def checked_guide_forward(legs: Numbers, robot: GuideRobot) -> SE3:
    """Call `guide_forward`; raise BadParameter, UnreachablePose, SingularConfiguration or
    JointLimit with the leg and its length."""
    lengths = _checked_array(legs, tuple(f"leg {i}" for i in range(1, 7)), "leg")
    pose, status = _guide_forward(lengths, robot)
    _raise_for_legs(lengths, pose, int(status), robot)
    return pose


def checked_chain_forward(q: Numbers, chain: SerialChain) -> SE3:
    """Call `chain_forward`; raise BadParameter or JointLimit with the joint and its value."""
    revolute = [n for n, turns in zip(chain.names, chain.is_revolute, strict=True) if turns]
    joints = _checked_array(q, chain.names, "joint")
    pose, status = _chain_forward(joints, chain)
    excess = np.asarray(chain_excess(joints, chain))
    worst = int(np.argmax(excess))
    name, value = chain.names[worst], float(joints[worst])
    hint = "; is it in degrees?" if name in revolute and abs(value) > _GREATEST_ANGLE else ""
    message = (
        f"joint {name} = {value:.4g} is {excess[worst]:.4g} beyond "
        f"[{float(chain.lower[worst]):.4g}, {float(chain.upper[worst]):.4g}]{hint}"
    )
    raise_for_status(status, message)
    return pose


def checked_chain_inverse(target: SE3, chain: SerialChain, start: Numbers) -> Float[Array, " j"]:
    """Call `solve_levenberg_marquardt`; raise BadParameter, UnreachablePose or
    SingularConfiguration with the remaining distance."""
    _check_pose(target)
    first = _checked_array(start, chain.names, "joint")
    found, status = _chain_inverse(target, chain, first)
    message = (
        f"{float(found.distance_mm):.3g} mm and {float(found.angle_rad):.3g} rad remain to the "
        "target: try other start positions, or a pose in reach"
    )
    if int(status) == StatusCode.SINGULAR_CONFIGURATION:
        message = "the arm is singular at the target: move the base or choose another pose"
    raise_for_status(status, message)
    return found.q


def checked_calibration(
    q: Float[Array, "..."], points_tracker: Float[Array, "..."], nominal: HybridRobot
) -> HybridCalibration:
    """Call `calibrate_from_points`; raise BadParameter, DegenerateGeometry or ClosureTooLarge with
    the numbers of the fit and the probable cause."""
    _check_robot(nominal)
    for name, values, width in (("q", q, 5), ("points_tracker", points_tracker, 3)):
        if values.ndim != 2 or values.shape[1] != width or len(values) != len(q):
            raise BadParameter(f"{name} has the shape {values.shape}: give (n, {width}), equal n")
        wrong = np.flatnonzero(~np.isfinite(np.asarray(values)).all(axis=1))
        if len(wrong):
            raise BadParameter(f"{name}[{wrong[0]}] is not finite: remove that pose")
    found, status = _calibrate(q, points_tracker, nominal)
    expected = np.asarray(_tool_points(q, nominal))
    spread, known = (float(np.ptp(x, axis=0).max()) for x in (np.asarray(points_tracker), expected))
    hint = "the points may be in another order than the poses"
    if not 0.5 < spread / known < 2.0:
        hint = f"the points span {spread:.4g} and the poses {known:.4g} mm: are they in mm?"
    seen = found.identifiability
    problem = {
        StatusCode.DEGENERATE_GEOMETRY: f"{len(q)} poses determine {int(seen.rank)} of 13 "
        "directions: vary the tilts (see plan_calibration)",
        StatusCode.CLOSURE_TOO_LARGE: "the points do not fit the robot: "
        f"{float(found.residual_rms_mm):.4g} mm rms and {float(found.residual_max_mm):.4g} mm at "
        f"most remain, 5 mm are allowed; {hint}",
    }
    raise_for_status(status, problem.get(StatusCode(int(status)), "the fit is not finite"))
    return found


def _checked_array(
    values: Numbers, names: tuple[str, ...], kind: str, angles: tuple[str, ...] = ()
) -> Float[Array, " n"]:
    """Values as an array; BadParameter for a wrong count, NaN, or angles in degrees."""
    array = np.asarray(values, float)
    if array.shape != (len(names),):
        raise BadParameter(f"{kind}s have the shape {array.shape}: give {', '.join(names)}")
    for name, value in zip(names, array, strict=True):
        if not np.isfinite(value):
            raise BadParameter(f"{kind} {name} is {value}: give a finite number")
        if name in angles and abs(value) > _GREATEST_ANGLE:
            raise BadParameter(f"{kind} {name} = {value:.4g} rad looks like degrees: give rad")
    return jnp.asarray(array, float)


def _check_robot(robot: HybridRobot) -> None:
    for name in (*_LENGTH_NAMES, "gamma", "theta", "d"):
        value = float(getattr(robot, name))
        if not np.isfinite(value):
            raise BadParameter(f"robot parameter {name} is {value}: give a finite number")
        if name in _LENGTH_NAMES and value <= 0.0:
            raise BadParameter(f"robot parameter {name} = {value:.4g} mm: a length is positive")
        if name in _LENGTH_NAMES and value < _LEAST_LENGTH_MM:
            raise BadParameter(f"robot parameter {name} = {value:.4g} looks like metres: give mm")
        if name in ("gamma", "theta") and abs(value) > _GREATEST_ANGLE:
            raise BadParameter(f"robot parameter {name} = {value:.4g} looks like degrees: give rad")
    wrong = np.flatnonzero(~(np.asarray(robot.lower) <= np.asarray(robot.upper)))
    if len(wrong):
        name = JOINT_NAMES[wrong[0]]
        raise BadParameter(f"the limits of joint {name} are not an interval: give lower <= upper")


def _check_pose(pose: SE3) -> None:
    matrix = np.asarray(pose.as_matrix())
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise BadParameter(
            f"the pose is not one finite rigid transform: its shape is {matrix.shape}"
        )


def _limit_message(q: Joints, robot: HybridRobot) -> str:
    excess = np.asarray(limit_excess(q, robot))
    worst = int(np.argmax(excess / np.asarray(robot.upper - robot.lower)[:5]))
    low, high = float(robot.lower[worst]), float(robot.upper[worst])
    return (
        f"joint {JOINT_NAMES[worst]} = {float(q[worst]):.4g} is {excess[worst]:.4g} beyond "
        f"[{low:.4g}, {high:.4g}]: move the base or choose another pose"
    )


def _raise_for_legs(legs: Float[Array, "6"], pose: SE3, status: int, robot: GuideRobot) -> None:
    excess = np.asarray(leg_excess(legs, robot))
    worst = int(np.argmax(excess))
    limits = f"[{float(robot.shortest_leg):.4g}, {float(robot.longest_leg):.4g}] mm"
    problem = {
        StatusCode.UNREACHABLE_POSE: "the robot reaches no pose with these leg lengths "
        "from its neutral pose: choose another pose",
        StatusCode.JOINT_LIMIT: f"leg {worst + 1} = {float(legs[worst]):.4g} mm is "
        f"{excess[worst]:.4g} beyond {limits}",
    }
    if status == StatusCode.SINGULAR_CONFIGURATION:
        condition = float(guide_condition(pose, robot))
        problem[StatusCode.SINGULAR_CONFIGURATION] = (
            f"the condition {condition:.3g} of the pose is above 50: choose another pose"
        )
    raise_for_status(status, problem.get(StatusCode(status), "the legs are not finite"))
