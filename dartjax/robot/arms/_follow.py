"""Motion of the hybrid robot along a planned needle path.

The end of the guide sleeve (the tool point) moves along the line of the path to a standoff in front
of the bone. From there only the feed moves, so the wire advances straight into the pedicle.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dartjax._numerics import normalize, safe_norm
from dartjax._types import Point, Scalar
from dartjax.observations import NeedlePath
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot._reductions import least
from dartjax.robot.arms._hybrid import (
    HybridRobot,
    Joints,
    ToolPose,
    hybrid_forward,
    hybrid_inverse,
    hybrid_margins,
    tool_frame,
    wire_pose,
)
from dartjax.robot.arms._tool_clearance import SignedDistance, ToolShape, in_patient, tool_clearance
from dartjax.robot.arms._trajectory import MotionLimits, Trajectory, joined, straight, timed
from dartjax.transforms import SE3

_LINE_SAMPLES = 5  # of the approach, from the retreat to the standoff
_JOINT_SAMPLES = 17  # of the first part of `follow`, from the start to the retreat


class ApproachOptions(eqx.Module):
    """Distances of the approach along the path's line before its entry point, mm."""

    standoff_mm: float = 10.0  # of the sleeve's end during the feed
    retreat_mm: float = 60.0  # from the standoff back to the start of the straight approach


class Approach(eqx.Module):
    """Approach of the robot to one path; base frame, mm and rad."""

    entry_point: Point
    target_point: Point
    pose: ToolPose  # at the standoff
    q: Joints  # at the standoff
    retreat_q: Joints  # at the start of the straight approach
    feed_at_entry: Scalar  # mm
    feed_at_target: Scalar
    margin: Scalar  # smallest of joints, reach and feed along the approach; > 0 = reachable
    clearance: Scalar  # smallest distance of tool and patient along the motion, mm


def plan_approach(
    path: NeedlePath,
    T_base_patient: SE3,
    robot: HybridRobot,
    *,
    body: SignedDistance,
    tool: ToolShape,
    options: ApproachOptions = ApproachOptions(),
    start: Joints | None = None,
) -> tuple[Approach, Status]:
    """Plan the approach to a path in patient coordinates (world RAS+ mm).

    Computes joints, feed, margin and clearance. `body` is the patient's signed distance in patient
    coordinates. With `start`, the joints from which `follow` begins, status and clearance are those
    of the whole motion; without it they are those of the straight approach alone, and the way to it
    has to be checked by `motion_clearance`. Status of the worst sample: BAD_PARAMETER (not finite,
    or a path of length 0), UNREACHABLE_POSE (its joints are NaN, or the links do not close on the
    way), SINGULAR_CONFIGURATION, JOINT_LIMIT (also for a feed that is too long). A collision does
    not change the status: check `clearance`, which is NaN if a pose or distance is not finite. Use
    vmap for several paths; differentiable in T_base_patient.
    """
    entry, target = T_base_patient.apply(path.entry_point), T_base_patient.apply(path.target_point)
    back = jnp.linspace(options.retreat_mm, 0.0, _LINE_SAMPLES) + options.standoff_mm
    poses = jax.vmap(lambda distance: _pose_before(entry, target, distance))(back)
    q, status = jax.vmap(lambda pose: hybrid_inverse(pose, robot))(poses)
    length = safe_norm(target - entry)
    feed = options.standoff_mm + length
    margins = jnp.append(
        jax.vmap(lambda pose: hybrid_margins(pose, robot))(poses).ravel(),
        (robot.upper[5] - feed) / (0.5 * (robot.upper[5] - robot.lower[5])),
    )
    patient = in_patient(T_base_patient, body)
    clearances = _clearances(poses, tool, patient)
    if start is not None:
        way, way_status = _way_to(start, q[0], robot)
        clearances = jnp.concatenate([clearances, _clearances(way, tool, patient)])
        status = jnp.concatenate([status, way_status])
    approach = Approach(
        entry_point=entry,
        target_point=target,
        pose=poses[-1],
        q=q[-1],
        retreat_q=q[0],
        feed_at_entry=jnp.asarray(options.standoff_mm, feed.dtype),
        feed_at_target=feed,
        margin=least(margins),
        clearance=least(clearances),
    )
    return approach, _worst_status(status, feed, length, robot)


def motion_clearance(
    motion: Trajectory,
    T_base_patient: SE3,
    robot: HybridRobot,
    *,
    body: SignedDistance,
    tool: ToolShape,
) -> Scalar:
    """Compute the smallest distance of tool and patient over all samples of a motion, mm.

    Negative in a collision, NaN if a sample has no pose. `body` is the patient's signed distance in
    patient coordinates. Any start and any motion of the hybrid robot can be checked.
    """
    poses, _ = jax.vmap(lambda q: hybrid_forward(q, robot))(motion.positions[:, :5])
    return least(_clearances(poses, tool, in_patient(T_base_patient, body)))


def _clearances(
    poses: Float[Array, "sample 5"], tool: ToolShape, patient: SignedDistance
) -> Float[Array, " sample"]:
    return jax.vmap(lambda pose: tool_clearance(tool_frame(pose), tool, patient))(poses)


def _way_to(
    start: Joints, retreat: Joints, robot: HybridRobot
) -> tuple[Float[Array, "sample 5"], Int[Array, " sample"]]:
    """Poses and statuses of the straight motion of the joints to the retreat.

    If a pose does not exist the status says so, and the pose at the start stands in its place, so
    that clearances and their derivatives stay finite.
    """
    end = jnp.where(jnp.all(jnp.isfinite(retreat)), retreat, start)
    share = jnp.linspace(0.0, 1.0, _JOINT_SAMPLES)[:, None]
    poses, status = jax.vmap(lambda q: hybrid_forward(q, robot))(
        start[None] + share * (end - start)[None]
    )
    known = jnp.all(jnp.isfinite(poses), axis=1, keepdims=True)
    return jnp.where(known, poses, poses[:1]), status


def approach_margins(
    path: NeedlePath,
    T_base_patient: SE3,
    robot: HybridRobot,
    *,
    options: ApproachOptions = ApproachOptions(),
) -> Float[Array, "16"]:
    """Compute the robot's margins (see `hybrid_margins`) at both ends of the approach.

    Base placement maximises them. Differentiable, also for a path out of reach.
    """
    entry, target = T_base_patient.apply(path.entry_point), T_base_patient.apply(path.target_point)
    back = options.standoff_mm + jnp.array([0.0, options.retreat_mm])
    poses = jax.vmap(lambda distance: _pose_before(entry, target, distance))(back)
    return jax.vmap(lambda pose: hybrid_margins(pose, robot))(poses).ravel()


def follow(
    approach: Approach,
    start: Joints,
    robot: HybridRobot,
    limits: MotionLimits,
    *,
    options: ApproachOptions = ApproachOptions(),
    num_samples: int = 51,
) -> Trajectory:
    """Compute a six-joint trajectory from `start` along an approach to the target.

    The joints move straight to the retreat, the tool moves straight along the path's line to the
    standoff, and then only the feed moves to the target. NaN for an approach out of reach; within
    limits if `start` and the approach are. The way to the retreat may lead through the patient:
    give `start` to `plan_approach` too, and check its clearance.
    """
    still = jnp.zeros((1,), start.dtype)

    def along_line(u: Scalar) -> Float[Array, "6"]:
        distance = options.standoff_mm + (1.0 - u) * options.retreat_mm
        pose = _pose_before(approach.entry_point, approach.target_point, distance)
        return jnp.concatenate([hybrid_inverse(pose, robot)[0], still])

    begin, retreat, standoff = (
        jnp.concatenate([q, still]) for q in (start, approach.retreat_q, approach.q)
    )
    fed = standoff.at[5].set(approach.feed_at_target)
    parts = (straight(begin, retreat), along_line, straight(standoff, fed))
    return joined(*(timed(part, limits, num_samples=num_samples) for part in parts))


def stack_paths(paths: Sequence[NeedlePath]) -> NeedlePath:
    """Stack paths along a leading axis, for vmap. Raises ValueError for an empty sequence."""
    if not paths:
        raise ValueError("there are no paths to stack: give at least one")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *paths)


def _pose_before(entry: Point, target: Point, distance: Scalar) -> ToolPose:
    """Pose of the tool on the path's line, `distance` mm before the entry."""
    direction = normalize(target - entry)
    return wire_pose(entry - distance * direction, direction)


def _worst_status(
    status: Int[Array, " sample"], feed: Scalar, length: Scalar, robot: HybridRobot
) -> Status:
    order = (
        StatusCode.BAD_PARAMETER,
        StatusCode.UNREACHABLE_POSE,
        StatusCode.SINGULAR_CONFIGURATION,
        StatusCode.JOINT_LIMIT,
    )
    found = {code: jnp.any(status == code) for code in order}
    found[StatusCode.BAD_PARAMETER] |= ~jnp.isfinite(feed) | ~(length > 0.0)
    found[StatusCode.JOINT_LIMIT] |= ~(feed <= robot.upper[5])
    return first_status(*found.items())
