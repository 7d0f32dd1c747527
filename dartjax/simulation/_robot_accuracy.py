"""Accuracy of the robots' kinematics in round trips, and reach of the hybrid robot.

Computations use the precision of JAX's configuration: enable 64 bits for round trips.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax import transforms
from dartjax.robot import StatusCode, arms
from dartjax.robot.arms import HybridRobot

_TILT = np.pi / 6
# Limits (lower, upper) of the tool's poses (x, y, z, tilt_x, tilt_y) in the studies, mm and rad.
HYBRID_POSE_BOX = np.array([(550, 700), (350, 600), (-250, -20), (-_TILT, _TILT), (-_TILT, _TILT)])
_NUM_JACOBIANS = 500
_DIFFERENCE = 1e-5  # mm and rad, of the joints
_NUM_GUIDE_POSES = 5000
_GUIDE_SHIFT_MM, _GUIDE_TURN_DEG = 10.0, 15.0
_GUIDE_LEG_ERROR_MM = 0.02


class ReachMap(NamedTuple):
    """Reach of the hybrid robot in a plane of constant x of its base frame."""

    x_mm: float
    y_mm: np.ndarray
    z_mm: np.ndarray
    tilts_deg: tuple[float, ...]
    reached: np.ndarray  # (tilt, z, y): at all combinations of +-tilt about x and y
    condition: np.ndarray  # (z, y): of the three sliders, upright; NaN out of reach


def random_hybrid_poses(seed: int, count: int) -> Float[np.ndarray, "pose 5"]:
    """Draw tool poses uniformly from HYBRID_POSE_BOX."""
    rng = np.random.default_rng([seed, 1])
    lower = HYBRID_POSE_BOX[:, 0]
    return lower + rng.random((count, 5)) * np.ptp(HYBRID_POSE_BOX, axis=1)


def hybrid_round_trips(seed: int, count: int) -> dict[str, float]:
    """Measure the largest errors of FK(IK(pose)) and IK(FK(joints)) of `count` poses each, and of
    the Jacobian against finite differences and its closed inverse.

    Keys: `round_trip_max_*` and `joint_round_trip_max_*` in mm and rad, the fractions of poses
    within the joint limits and of drawn joints whose loop closes, and two errors of the Jacobian.
    """
    model = arms.spine_hybrid()
    forward = jax.jit(jax.vmap(lambda q: arms.hybrid_forward(q, model)))
    inverse = jax.jit(jax.vmap(lambda pose: arms.hybrid_inverse(pose, model)))
    poses = jnp.asarray(random_hybrid_poses(seed, count))
    q, status = inverse(poses)
    back, _ = forward(q)
    drawn, drawn_poses, drawn_status = arms.sample_joints(model, count, key=jax.random.key(seed))
    good = drawn_status == StatusCode.OK
    again, _ = inverse(drawn_poses[good])
    return {
        "round_trip_max_mm": _largest((back - poses)[:, :3]),
        "round_trip_max_rad": _largest((back - poses)[:, 3:]),
        "joint_round_trip_max_mm": _largest((again - drawn[good])[:, :3]),
        "joint_round_trip_max_rad": _largest((again - drawn[good])[:, 3:]),
        "round_trip_poses": count,
        "poses_within_limits_share": float(np.mean(status == StatusCode.OK)),
        "drawn_joints_that_close_share": float(np.mean(good)),
        **_jacobian_errors(q[:_NUM_JACOBIANS], poses[:_NUM_JACOBIANS], model),
    }


def _jacobian_errors(
    q: Float[Array, "pose 5"], poses: Float[Array, "pose 5"], model: HybridRobot
) -> dict[str, float]:
    forward = jax.jit(jax.vmap(lambda each: arms.hybrid_forward(each, model)))
    jacobian = jax.jit(jax.vmap(lambda each: arms.hybrid_jacobian(each, model)))(q)
    closed = jax.jit(jax.vmap(lambda each: arms.hybrid_inverse_jacobian(each, model)))(poses)
    steps = _DIFFERENCE * jnp.eye(5)[:, None]
    differences = [
        (forward(q + step)[0] - forward(q - step)[0]) / (2.0 * _DIFFERENCE) for step in steps
    ]
    return {
        "jacobian_to_differences_max": _largest(jacobian - jnp.stack(differences, axis=-1)),
        "jacobian_times_closed_inverse_max": _largest(jacobian @ closed - jnp.eye(5)[None]),
    }


def hybrid_round_trip_float32(seed: int, count: int) -> tuple[float, float]:
    """Measure the largest error of FK(IK(pose)) in single precision, mm and rad."""
    model = arms.spine_hybrid()
    poses = jnp.asarray(random_hybrid_poses(seed, count), jnp.float32)
    q, _ = jax.jit(jax.vmap(lambda pose: arms.hybrid_inverse(pose, model)))(poses)
    back, _ = jax.jit(jax.vmap(lambda each: arms.hybrid_forward(each, model)))(q)
    return _largest((back - poses)[:, :3]), _largest((back - poses)[:, 3:])


def guide_round_trips(seed: int) -> dict[str, float]:
    """Measure round trips of the six-leg guide robot near its neutral pose, and the error of its
    tool for leg errors of 0.02 mm."""
    model = arms.bone_mounted_guide()
    rng = np.random.default_rng([seed, 2])
    size = (_NUM_GUIDE_POSES, 3)
    shifts = jnp.asarray(rng.uniform(-_GUIDE_SHIFT_MM, _GUIDE_SHIFT_MM, size))
    turns = jnp.asarray(np.deg2rad(rng.uniform(-_GUIDE_TURN_DEG, _GUIDE_TURN_DEG, size)))
    start = arms.neutral_pose(model)
    poses = jax.vmap(lambda turn, shift: transforms.perturb(start, turn, shift))(turns, shifts)
    legs, status = jax.jit(jax.vmap(lambda T: arms.guide_inverse(T, model)))(poses)
    back, _ = jax.jit(jax.vmap(lambda each: arms.guide_forward(each, model)))(legs)
    error = jax.jit(jax.vmap(lambda T: arms.guide_error(T, model, _GUIDE_LEG_ERROR_MM)))(poses)
    return {
        "guide_round_trip_max_mm": _largest(back.translation() - poses.translation()),
        "guide_within_limits_share": float(np.mean(status == StatusCode.OK)),
        "guide_tool_error_mean_mm": float(np.mean(error.position_rms_mm)),
        "guide_tool_error_max_mm": float(np.max(error.position_rms_mm)),
    }


def hybrid_reach_map(
    x_mm: float = 625.0, tilts_deg: tuple[float, ...] = (0.0, 15.0, 30.0)
) -> ReachMap:
    """Compute reach and conditioning on a grid of y and z (10 mm apart) in the plane x = x_mm."""
    model = arms.spine_hybrid()
    y, z = np.arange(150.0, 851.0, 10.0), np.arange(-400.0, 201.0, 10.0)
    points = np.stack(np.meshgrid(y, z), -1).reshape(-1, 2)
    points = np.c_[np.full(len(points), x_mm), points]
    inverse = jax.jit(jax.vmap(lambda pose: arms.hybrid_inverse(pose, model)))
    reached: list[Bool[np.ndarray, " n"]] = []
    for tilt in np.deg2rad(tilts_deg):
        corners = [(a, b) for a in (-tilt, tilt) for b in (-tilt, tilt)]
        codes = [np.asarray(inverse(_tilted(points, corner))[1]) for corner in corners]
        reached.append(np.all(np.stack(codes) == StatusCode.OK, axis=0))
    condition = jax.jit(jax.vmap(lambda q: arms.conditioning(q, model).slider_condition))
    upright = np.asarray(condition(inverse(_tilted(points, (0.0, 0.0)))[0]))
    shape = (len(z), len(y))
    upright = np.where(reached[0], upright, np.nan).reshape(shape)
    return ReachMap(x_mm, y, z, tilts_deg, np.stack(reached).reshape(-1, *shape), upright)


def _tilted(
    points: Float[np.ndarray, "pose 3"], tilts: tuple[float, float]
) -> Float[Array, "pose 5"]:
    """Poses with one tilt at the given points."""
    return jnp.asarray(np.c_[points, np.tile(tilts, (len(points), 1))])


def _largest(values: jax.Array) -> float:
    return float(jnp.max(jnp.abs(values)))
