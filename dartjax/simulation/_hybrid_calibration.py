"""Simulation of the calibration experiment of [L] Li, Du and Yu (2020), tables 4 to 6.

A robot as built has errors in its structure parameters. It is driven to 15 waypoints with nominal,
calibrated and true parameters (the noise floor), and the 14 legs measured by a tracker are compared
with the commanded ones. Use 64-bit arrays.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dartjax import transforms
from dartjax.robot import arms
from dartjax.robot.arms import HybridRobot, Identifiability
from dartjax.simulation._robot_accuracy import HYBRID_POSE_BOX
from dartjax.transforms import SE3

CALIBRATION_WAYPOINTS_MM = np.array(
    [
        *[(550.0, y, -70.0) for y in (350.0, 400.0, 450.0, 500.0, 550.0, 600.0)],
        (550.0, 600.0, -20.0),
        (600.0, 600.0, -20.0),
        (650.0, 600.0, -20.0),
        (650.0, 600.0, -100.0),
        (680.0, 600.0, -150.0),
        (700.0, 600.0, -200.0),
        (700.0, 550.0, -250.0),
        (660.0, 500.0, -100.0),
        (700.0, 520.0, -130.0),
    ]
)
DRIVE_MODELS = ("nominal", "calibrated", "true")  # parameters with which a robot is driven

_STRUCTURE_SD_MM, _STRUCTURE_SD_RAD = 1.8, 3.5e-3  # chosen to give the published error
_TRACKER_SD_MM = _SLIDER_SD_MM = 0.01
_NUM_CALIBRATION_POSES, _NUM_TEST_POSES = 40, 50


class DriveErrors(NamedTuple):
    """Absolute errors of simulated robots by drive model: errors of the 14 legs, and of single
    poses with varied tilts. Leading axis: robot."""

    legs_mm: dict[str, jax.Array | np.ndarray]
    position_mm: dict[str, jax.Array | np.ndarray]  # of 50 poses in the whole box, base frame
    tilt_rad: dict[str, jax.Array | np.ndarray]
    status: jax.Array | np.ndarray  # of the calibration


def calibration_plan(seed: int) -> Float[Array, "pose 5"]:
    """Plan the joint positions at which every robot is calibrated."""
    nominal = arms.spine_hybrid()
    plan = jax.jit(lambda key: arms.plan_calibration(nominal, _NUM_CALIBRATION_POSES, key=key))
    return plan(jax.random.key(seed))


def simulate_drive_errors(seed: int, num_robots: int, plan: Float[Array, "pose 5"]) -> DriveErrors:
    """Draw robots, calibrate each at the planned joint positions, and drive it with every model."""
    nominal = arms.spine_hybrid()
    keys = jax.random.split(jax.random.key(seed + 1), num_robots)
    results = jax.jit(jax.vmap(lambda key: _one_robot(key, plan, nominal)))(keys)
    return jax.tree.map(np.asarray, results)


def calibration_identifiability(plan: Float[Array, "pose 5"]) -> dict[str, Identifiability]:
    """Compute the identifiability from `legs` of upright waypoints and from planned `points`."""
    nominal = arms.spine_hybrid()
    found = {
        "legs": arms.identifiability_of_legs(_upright_joints(nominal), nominal),
        "points": arms.identifiability_of_points(plan, nominal),
    }
    return jax.tree.map(np.asarray, found)


def ideal_leg_lengths() -> Float[np.ndarray, "14"]:
    """Compute the legs (mm) of the nominal robot, driven without errors."""
    nominal = arms.spine_hybrid()
    return np.asarray(arms.leg_lengths(arms.tool_points(_upright_joints(nominal), nominal)))


def _one_robot(key: Array, plan: Float[Array, "pose 5"], nominal: HybridRobot) -> DriveErrors:
    keys = jax.random.split(key, 8)
    built = arms.perturbed(nominal, _STRUCTURE_SD_MM, _STRUCTURE_SD_RAD, key=keys[0])
    T_tracker_base = SE3.exp(
        jnp.array([300.0, 300.0, 300.0, 0.5, 0.5, 0.5]) * jax.random.normal(keys[1], (6,))
    )
    reached = arms.tool_points(_with_repeatability(plan, keys[2]), built)
    seen = _tracked(transforms.apply(T_tracker_base, reached), keys[3])
    found, status = arms.calibrate_from_points(plan, seen, nominal)

    models = dict(zip(DRIVE_MODELS, (nominal, found.robot, built), strict=True))
    waypoints = _upright_poses()
    wanted = arms.leg_lengths(waypoints[:, :3])
    legs, position, tilt = {}, {}, {}
    for name, model in models.items():
        points = _driven(waypoints, model, built, keys[4])[:, :3]
        legs[name] = jnp.abs(arms.leg_lengths(_tracked(points, keys[5])) - wanted)
        poses = _test_poses(keys[6])
        gap = _driven(poses, model, built, keys[7]) - poses
        position[name] = jnp.linalg.norm(gap[:, :3], axis=1)
        tilt[name] = jnp.linalg.norm(gap[:, 3:], axis=1)
    return DriveErrors(legs, position, tilt, status)


def _upright_poses() -> Float[Array, "waypoint 5"]:
    return jnp.concatenate([jnp.asarray(CALIBRATION_WAYPOINTS_MM), jnp.zeros((15, 2))], axis=1)


def _upright_joints(robot: HybridRobot) -> Float[Array, "waypoint 5"]:
    return jax.vmap(lambda pose: arms.hybrid_inverse(pose, robot)[0])(_upright_poses())


def _driven(
    poses: Float[Array, "n 5"], model: HybridRobot, built: HybridRobot, key: Array
) -> Float[Array, "n 5"]:
    """Poses of the built robot if `model` computes its joints."""
    q = jax.vmap(lambda pose: arms.hybrid_inverse(pose, model)[0])(poses)
    return jax.vmap(lambda each: arms.hybrid_forward(each, built)[0])(_with_repeatability(q, key))


def _with_repeatability(q: Float[Array, "n 5"], key: Array) -> Float[Array, "n 5"]:
    """Joint positions with errors of the sliders' repeatability."""
    return q.at[:, :3].add(_SLIDER_SD_MM * jax.random.normal(key, (len(q), 3), q.dtype))


def _tracked(points: Float[Array, "n 3"], key: Array) -> Float[Array, "n 3"]:
    return points + _TRACKER_SD_MM * jax.random.normal(key, points.shape, points.dtype)


def _test_poses(key: Array) -> Float[Array, "pose 5"]:
    lower, upper = jnp.asarray(HYBRID_POSE_BOX.T)
    share = jax.random.uniform(key, (_NUM_TEST_POSES, 5), lower.dtype)
    return lower[None] + share * (upper - lower)[None]
