"""Simulated operations of distal locking, from images to the axis of the drill."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax.robot import NavigationError
from dartjax.robot.arms import (
    GuideRobot,
    bone_mounted_guide,
    guide_forward,
    guide_inverse,
    neutral_pose,
)
from dartjax.robot.carm import hull_ellipse
from dartjax.robot.distal import (
    Event,
    Protocol,
    State,
    check_guide,
    check_nail,
    fronto_parallel_view,
    generic_view,
    locking_error,
    required_tip,
    tilt_deg,
    turn_advice,
)
from dartjax.simulation.distal._scene import (
    CalibratedCarm,
    LockingArrangement,
    LockingScene,
    expose_locking_scene,
    find_guide_and_nail,
    random_guide_and_nail,
    scene_nail,
)
from dartjax.transforms import SE3, SO3

LEG_NOISE_MM = 0.02
TURN_ERROR_DEG = 0.7  # error of the operator who turns the C-arm, per axis
ANOTHER_VIEW_DEG = 5.0  # random rotation of the C-arm after a failed image, per axis
GOOD_VIEW_DEG = 1.0  # largest measured tilt of a view accepted as fronto-parallel
_WALL = 6.0  # mm from the nail's axis to its surface
ROD_CLEARANCE_MM = 0.5  # radial clearance of a 4 mm rod in a 5 mm hole
MOUNTINGS = {
    "bone": LockingArrangement(),
    # The nail bends along its length, so the neutral pose is further from the goal.
    "nail_head": LockingArrangement(
        guide_along=11.0, guide_across=(-11.0, 11.0), guide_tilt_deg=7.0
    ),
}
NAIL_POSE_ESTIMATORS = ("through-hole", "fronto-parallel, closed form", "generic, 15 points")


@functools.cache
def _robot() -> GuideRobot:
    """The nominal guide robot."""
    # Created on first use: an import must not initialise a device, and tracing must not leak.
    with jax.ensure_compile_time_eval():
        return bone_mounted_guide()


class OutOfReach(NavigationError):
    """The goal computed from the image is out of the robot's reach."""


class RobotOnBone(NamedTuple):
    """Mounted robot: its true base pose, and the commanded pose of its tip."""

    T_camera_base: SE3
    T_base_tip: SE3  # as commanded
    T_tip_guide: SE3


class TruePoses(NamedTuple):
    """True poses of guide, nail and robot in the camera's frame."""

    T_camera_guide: SE3
    T_camera_nail: SE3
    robot: RobotOnBone

    def after_turning(self, turn_deg: np.ndarray) -> "TruePoses":
        """Compute the poses after a rotation of the C-arm about the nail (rotation vector (3,))."""
        about = np.asarray(self.T_camera_nail.translation())
        guide, nail, base = (
            _turned(T, turn_deg, about)
            for T in (self.T_camera_guide, self.T_camera_nail, self.robot.T_camera_base)
        )
        return TruePoses(guide, nail, self.robot._replace(T_camera_base=base))


_forward, _inverse = jax.jit(guide_forward), jax.jit(guide_inverse)
_required = jax.jit(required_tip)


def _reached_pose(T: SE3, rng: np.random.Generator) -> SE3:
    """Pose of the platform with random errors of the legs. OutOfReach if the pose is out of
    reach."""
    legs, status = _inverse(T, _robot())
    if int(status):
        raise OutOfReach("the goal is out of the robot's reach")
    moved, _ = _forward(legs + jnp.asarray(rng.normal(0.0, LEG_NOISE_MM, 6), legs.dtype), _robot())
    return moved


def _mounted(T_camera_guide: SE3, rng: np.random.Generator) -> RobotOnBone:
    """Mount a robot in its neutral pose so that it holds the guide at its present pose."""
    T_tip_guide = SE3.from_rotation_and_translation(
        SO3.from_z_radians(jnp.asarray(rng.uniform(-0.2, 0.2), jnp.float32)),
        jnp.asarray([15.0, -16.0, 20.0], jnp.float32),
    )
    commanded = neutral_pose(_robot())
    real = _reached_pose(commanded, rng)
    T_base_guide = real @ T_tip_guide
    return RobotOnBone(T_camera_guide @ T_base_guide.inverse(), commanded, T_tip_guide)


def _move_guide(poses: TruePoses, seen_guide: SE3, seen_nail: SE3, rng: np.random.Generator) -> SE3:
    """T_nail_guide after the robot's single motion from the estimated poses. OutOfReach if it is
    not possible."""
    robot = poses.robot
    tip, status = _required(robot.T_base_tip, robot.T_tip_guide, seen_guide, seen_nail)
    if int(status):
        raise OutOfReach("the holes are seen from the side")
    T_base_tip = _reached_pose(tip, rng)
    T_nail_base = poses.T_camera_nail.inverse() @ robot.T_camera_base
    return T_nail_base @ T_base_tip @ robot.T_tip_guide


class EstimatedPoses(NamedTuple):
    """Estimated poses of guide and nail from one image; the nail's pose by every estimator."""

    T_camera_guide: SE3
    T_camera_nail: dict[str, SE3]


_ellipses = jax.jit(jax.vmap(hull_ellipse))
_generic = jax.jit(generic_view)
_fronto = jax.jit(fronto_parallel_view)


def estimate_poses(image: jax.Array, carm: CalibratedCarm) -> EstimatedPoses:
    """Estimate the poses of guide and nail from one image, the nail's by three estimators.

    Raises the errors of `check_guide` and `check_nail`.
    """
    located = find_guide_and_nail(image, carm)
    guide, nail = check_guide(located), check_nail(located)
    K = carm.calibrated.carm.K
    ellipses, _ = _ellipses(located.edges.hole, located.edges.hole_valid)
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], ellipses) for i in (0, 1))
    T_guide = guide.pose.T_camera_object
    x_axis = T_guide.rotation().as_matrix()[:2, 0]
    fronto, _ = _fronto(first, second, x_axis, K, scene_nail())
    generic, _, _ = _generic(first, second, K, scene_nail())
    nails = (nail.T_camera_nail, fronto, generic)
    return EstimatedPoses(T_guide, dict(zip(NAIL_POSE_ESTIMATORS, nails, strict=True)))


def _turned(T: SE3, turn_deg: np.ndarray, about: np.ndarray) -> SE3:
    """Pose in the camera's frame after a rotation of the C-arm about a point."""
    rotation = SO3.exp(-jnp.deg2rad(jnp.asarray(turn_deg, jnp.float32)))
    center = jnp.asarray(about, jnp.float32)
    around = SE3.from_rotation_and_translation(rotation, center - rotation.apply(center))
    return around @ T


class _Operation(NamedTuple):
    """Operation in progress."""

    protocol: Protocol
    poses: TruePoses
    rows: list[dict[str, Any]]


# Events of the states in which no image is needed.
_ROUTINE = {
    State.NAIL_IN: Event.MOUNT,
    State.MOUNTED: Event.CALIBRATE,
    State.POSITIONED: Event.LOCK,
    State.LOCKED: Event.DRILL,
}


def distal_locking_operation(
    mounting: str,
    view: str,
    carms: Sequence[CalibratedCarm],
    backgrounds: np.ndarray,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Simulate one operation: the protocol from mounting to drilling, every pose from images.

    `mounting` is `bone` or `nail_head`, `view` is `fronto_parallel` or `generic`. Returns one row
    per estimator of the nail's pose; the protocol follows the through-hole one.
    """
    guide, nail = random_guide_and_nail(rng, MOUNTINGS[mounting])
    carm = carms[int(rng.integers(len(carms)))]
    poses = TruePoses(guide, nail, _mounted(guide, rng))
    protocol = Protocol(mounting, view)  # pyright: ignore[reportArgumentType]
    operation = _Operation(protocol, poses, [])
    while not operation.protocol.is_over:
        state = operation.protocol.state
        if state is State.CALIBRATED:
            operation = _image_and_move(operation, carm, backgrounds, rng)
        else:
            protocol = operation.protocol.after(_ROUTINE[state])
            operation = operation._replace(protocol=protocol)
        if operation.protocol.state is State.NAIL_IN:  # out of reach: mount again elsewhere
            guide, nail = random_guide_and_nail(rng, MOUNTINGS[mounting])
            operation = operation._replace(poses=TruePoses(guide, nail, _mounted(guide, rng)))
    end = {"images": operation.protocol.images, "end": operation.protocol.state.value}
    return [row | end for row in operation.rows]


def _image_and_move(
    operation: _Operation,
    carm: CalibratedCarm,
    backgrounds: np.ndarray,
    rng: np.random.Generator,
) -> _Operation:
    """Take one image, then move the robot, or turn the C-arm for a better view."""
    protocol, poses, _ = operation
    anatomy = backgrounds[int(rng.integers(len(backgrounds)))]
    scene = LockingScene(carm, poses.T_camera_guide, poses.T_camera_nail)
    image = expose_locking_scene(scene, anatomy, int(rng.integers(2**31)))
    try:
        seen = estimate_poses(image, carm)
    except NavigationError as error:
        turn = np.append(rng.normal(0.0, ANOTHER_VIEW_DEG, 2), 0.0)
        rows = _rows_without_pose(protocol, str(error))
        return _Operation(protocol.after(Event.NOT_SEEN), poses.after_turning(turn), rows)
    protocol = protocol.after(Event.SEEN)
    advice = turn_advice(seen.T_camera_nail[NAIL_POSE_ESTIMATORS[0]])
    if protocol.view == "fronto_parallel" and advice.tilt_deg > GOOD_VIEW_DEG:
        advised = np.array([advice.about_x_deg, advice.about_y_deg, 0.0])
        turn = advised + np.append(rng.normal(0.0, TURN_ERROR_DEG, 2), 0.0)
        return _Operation(protocol.after(Event.TURN), poses.after_turning(turn), operation.rows)
    rows = [
        _row(name, protocol, poses, seen.T_camera_guide, nail, rng)
        for name, nail in seen.T_camera_nail.items()
    ]
    within_reach = rows[0]["outcome"] == "drilled"
    return _Operation(
        protocol.after(Event.MOVED if within_reach else Event.OUT_OF_REACH), poses, rows
    )


def _row(
    name: str,
    protocol: Protocol,
    poses: TruePoses,
    seen_guide: SE3,
    seen_nail: SE3,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Row of one estimator of the nail's pose: outcome, and error of the drill's axis."""
    row = {
        "mounting": protocol.mounting,
        "view": protocol.view,
        "estimator": name,
        "tilt_deg": tilt_deg(poses.T_camera_nail),
    }
    try:
        reached = _move_guide(poses, seen_guide, seen_nail, rng)
    except NavigationError as problem:
        return row | {"outcome": str(problem), **_NO_ERROR}
    error = locking_error(reached)
    at_walls = locking_error(reached, planes=(_WALL, -_WALL))
    return row | {
        "outcome": "drilled",
        "angle_deg": error.angle_deg,
        "entry_mm": error.entry_mm,
        "exit_mm": error.exit_mm,
        "error_mm": 0.5 * (error.entry_mm + error.exit_mm),
        "rod_passes": max(at_walls.entry_mm, at_walls.exit_mm) <= ROD_CLEARANCE_MM,
    }


_NO_ERROR = {
    "angle_deg": np.nan,
    "entry_mm": np.nan,
    "exit_mm": np.nan,
    "error_mm": np.nan,
    "rod_passes": False,
}


def _rows_without_pose(protocol: Protocol, reason: str) -> list[dict[str, Any]]:
    common = {"mounting": protocol.mounting, "view": protocol.view, "tilt_deg": np.nan}
    return [
        common | {"outcome": reason, "estimator": name, **_NO_ERROR}
        for name in NAIL_POSE_ESTIMATORS
    ]


def reference_pose_spread(rng: np.random.Generator, count: int = 18) -> list[dict[str, Any]]:
    """Measure the spread of guide poses that two rods of 4 mm in the 5 mm holes allow.

    This is the uncertainty of the published reference. Poses are drawn by rejection sampling. The
    true pose is not known in the published experiment, so every pair of poses is compared, one row
    per pair, with the metric of `locking_error`: its planes are those at 100 and 120 mm from the
    robot's base, with the nail between them.
    """
    poses = _poses_with_rods(rng, count)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        for j in range(i):
            error = locking_error(SE3.from_matrix(jnp.asarray(np.linalg.inv(poses[i]) @ poses[j])))
            rows.append({"pair": f"{j} and {i}", **error._asdict()})
    return rows


def _poses_with_rods(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random poses T_nail_guide (count, 4, 4) for which a rod of 4 mm passes both holes."""
    poses: list[np.ndarray] = []
    while len(poses) < count:
        turn = np.array([*rng.uniform(-0.09, 0.09, 2), rng.uniform(-0.04, 0.04)])
        pose = np.eye(4)
        pose[:3, :3] = np.asarray(SO3.exp(jnp.asarray(turn)).as_matrix())
        pose[:2, 3] = rng.uniform(-0.6, 0.6, 2)
        walls = locking_error(SE3.from_matrix(jnp.asarray(pose)), planes=(_WALL, -_WALL))
        if max(walls.entry_mm, walls.exit_mm) <= ROD_CLEARANCE_MM:
            poses.append(pose)
    return np.stack(poses)
