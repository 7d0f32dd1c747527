"""The calibration experiment of [L] (tables 4 to 6): 15 waypoints, 14 legs, a tracker.

A robot as built has errors in its structure parameters. It is driven to the waypoints with its
nominal parameters, with calibrated ones, and with its true ones (the noise floor), and the measured
legs are compared with the commanded ones.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import transforms
from dartjax.robot import arms
from dartjax.robot.arms import HybridRobot
from dartjax.transforms import SE3

WAYPOINTS_MM = np.array(
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
PRINTED_LEGS_MM = (*[50.0] * 8, 80.0, 58.31, 53.85, 70.71, 163.095, 53.85)  # table 4
PUBLISHED_MEAN_MM = 0.17

SIGMA_MM, SIGMA_RAD = 1.8, 3.5e-3  # errors of the structure that give the published error
TRACKER_MM = SLIDER_MM = 0.01
NUM_CALIBRATION_POSES = 40
DRIVES = ("nominal", "calibrated", "true")


class Study(NamedTuple):
    """One robot: absolute errors of the 14 legs by the parameters it was driven with, and of
    single poses with varied tilts."""

    legs_mm: dict[str, jax.Array]
    position_mm: dict[str, jax.Array]  # of 50 poses all over the box, in the base's frame
    tilt_rad: dict[str, jax.Array]
    status: jax.Array


def study(key: jax.Array, plan: jax.Array, nominal: HybridRobot) -> Study:
    """Draw a robot, calibrate it from the planned poses, and drive it in three ways."""
    keys = jax.random.split(key, 8)
    built = arms.perturbed(nominal, SIGMA_MM, SIGMA_RAD, key=keys[0])
    T_tracker_base = SE3.exp(
        jnp.array([300.0, 300.0, 300.0, 0.5, 0.5, 0.5]) * jax.random.normal(keys[1], (6,))
    )
    reached = arms.tool_points(_repeated(plan, keys[2]), built)
    seen = _tracked(transforms.apply(T_tracker_base, reached), keys[3])
    found, status = arms.calibrate_from_points(plan, seen, nominal)

    models = dict(zip(DRIVES, (nominal, found.robot, built), strict=True))
    waypoints = jnp.concatenate([jnp.asarray(WAYPOINTS_MM), jnp.zeros((15, 2))], axis=1)
    wanted = arms.leg_lengths(waypoints[:, :3])
    legs, position, tilt = {}, {}, {}
    for name, model in models.items():
        points = _driven(waypoints, model, built, keys[4])[:, :3]
        legs[name] = jnp.abs(arms.leg_lengths(_tracked(points, keys[5])) - wanted)
        poses = _poses_of_the_box(keys[6])
        gap = _driven(poses, model, built, keys[7]) - poses
        position[name] = jnp.linalg.norm(gap[:, :3], axis=1)
        tilt[name] = jnp.linalg.norm(gap[:, 3:], axis=1)
    return Study(legs, position, tilt, status)


def run(seed: int, num_robots: int) -> tuple[Study, dict[str, Any]]:
    """The study of many robots in one program, and what legs and planned poses determine."""
    nominal = arms.spine_hybrid()
    plan = jax.jit(lambda key: arms.plan_calibration(nominal, NUM_CALIBRATION_POSES, key=key))(
        jax.random.key(seed)
    )
    keys = jax.random.split(jax.random.key(seed + 1), num_robots)
    results = jax.jit(jax.vmap(lambda key: study(key, plan, nominal)))(keys)
    waypoints = jnp.concatenate([jnp.asarray(WAYPOINTS_MM), jnp.zeros((15, 2))], axis=1)
    upright = jax.vmap(lambda pose: arms.hybrid_inverse(pose, nominal)[0])(waypoints)
    seen = {
        "legs": arms.identifiability_of_legs(upright, nominal),
        "points": arms.identifiability_of_points(plan, nominal),
    }
    return jax.tree.map(np.asarray, (results, seen))


def ideal_legs() -> np.ndarray:
    """Legs of the nominal robot driven without any error: inverse, forward, distances."""
    nominal = arms.spine_hybrid()
    waypoints = jnp.concatenate([jnp.asarray(WAYPOINTS_MM), jnp.zeros((15, 2))], axis=1)
    q = jax.vmap(lambda pose: arms.hybrid_inverse(pose, nominal)[0])(waypoints)
    return np.asarray(arms.leg_lengths(arms.tool_points(q, nominal)))


def _driven(poses: jax.Array, model: HybridRobot, built: HybridRobot, key: jax.Array):
    """Poses the built robot takes when `model` computes its joints."""
    q = jax.vmap(lambda pose: arms.hybrid_inverse(pose, model)[0])(poses)
    return jax.vmap(lambda each: arms.hybrid_forward(each, built)[0])(_repeated(q, key))


def _repeated(q: jax.Array, key: jax.Array) -> jax.Array:
    """Joint positions with the sliders' repeatability."""
    return q.at[:, :3].add(SLIDER_MM * jax.random.normal(key, (len(q), 3), q.dtype))


def _tracked(points: jax.Array, key: jax.Array) -> jax.Array:
    return points + TRACKER_MM * jax.random.normal(key, points.shape, points.dtype)


def _poses_of_the_box(key: jax.Array) -> jax.Array:
    lower = jnp.array([550.0, 350.0, -250.0, -jnp.pi / 6, -jnp.pi / 6])
    upper = jnp.array([700.0, 600.0, -20.0, jnp.pi / 6, jnp.pi / 6])
    share = jax.random.uniform(key, (50, 5), lower.dtype)
    return lower[None] + share * (upper - lower)[None]
