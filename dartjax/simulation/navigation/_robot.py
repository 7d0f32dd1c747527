"""Simulated robot of two-plane navigation: markers, tracker and closed-loop wire placement."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import transforms
from dartjax.observations import NeedlePath
from dartjax.robot import navigation
from dartjax.robot.arms import (
    HybridRobot,
    hybrid_forward,
    hybrid_inverse,
    perturbed,
    spine_hybrid,
    tool_frame,
)
from dartjax.robot.navigation import LoopOptions, Tracker
from dartjax.simulation._planned_patient import PRONE_ROTATION, ROBOT_WORKSPACE_CENTER_MM
from dartjax.transforms import SE3, SO3

TRACKER = Tracker()
BUILT_MM, BUILT_RAD = 1.8, 3.5e-3  # errors of the robot's structure
REPEATABILITY_MM = 0.01
LEVER_MM = 200.0  # from each marker to the tool
STANDOFF_MM = 10.0  # of the tool point from the entry
LEVEL_TABLE_RAD, TABLE_TILT_RAD = (
    0.6,
    0.25,
)  # steepest path over a level table; largest tilt of the table
SHOT = (625.0, 475.0, -100.0, 0.0, 0.0)  # pose in which the robot holds the target
CALIBRATION_MM, CALIBRATION_RAD = 0.05, 2e-4  # of marker to tool and marker to target, per axis
SINGLE_FRAME = LoopOptions(noise_mm=0.285, noise_rad=1.24e-3)
LOOP_TOLERANCE_MM, LOOP_TOLERANCE_DEG = 0.10, 0.05


@functools.cache
def _robot() -> HybridRobot:
    """The nominal robot."""
    # Created on first use: an import must not initialise a device, and tracing must not leak.
    with jax.ensure_compile_time_eval():
        return spine_hybrid()


class WirePlacement(NamedTuple):
    """Placed wire, with the course of the closed loop."""

    entry_point: jax.Array  # world, point of the wire's axis at the start of the path
    target_point: jax.Array
    open_error: jax.Array  # (mm, rad) of the tool from its goal at the first command
    loop_error: jax.Array  # and at the last command
    measured: jax.Array  # (round, 2): errors measured in the loop
    measurements: jax.Array
    status: jax.Array


def robot_base_for(path: NeedlePath) -> SE3:
    """Compute T_base_world that places a path's entry in the middle of the workspace.

    The patient is prone. The robot reaches paths inclined by up to 43 degrees toward head or feet;
    beyond 34 degrees the table is tilted.
    """
    axis = path.target_point - path.entry_point
    inclination = jnp.arctan2(axis[2], jnp.hypot(axis[0], axis[1]))
    excess = inclination - jnp.clip(inclination, -LEVEL_TABLE_RAD, LEVEL_TABLE_RAD)
    tilt = SO3.from_x_radians(-jnp.clip(excess, -TABLE_TILT_RAD, TABLE_TILT_RAD))
    turn = SO3.from_matrix(jnp.array(PRONE_ROTATION)) @ tilt
    center = jnp.array(ROBOT_WORKSPACE_CENTER_MM)
    return SE3.from_rotation_and_translation(turn, center - turn.apply(path.entry_point))


class _Setup(NamedTuple):
    """True robot, tracker and markers, and the calibrated frames known to the controller."""

    built: HybridRobot
    T_base_world: SE3
    T_base_patient: SE3  # patient: the marker on the spine
    T_tracker_base: SE3
    T_marker_tool: SE3  # as calibrated
    num_frames: int  # of one measurement

    def reached(self, command: jax.Array, key: jax.Array) -> SE3:
        """Simulate the true T_base_tool after a command."""
        q, _ = hybrid_inverse(command, _robot())
        noise = REPEATABILITY_MM * jax.random.normal(key, (3,))
        return tool_frame(hybrid_forward(q.at[:3].add(noise), self.built)[0])

    def measured_tool(self, T_base_tool: SE3, key: jax.Array) -> SE3:
        """Simulate the tracker's measurement of T_patient_tool."""
        first, second = jax.random.split(key)
        patient = navigation.measure_marker(
            self.T_tracker_base @ self.T_base_patient, TRACKER, self.num_frames, key=first
        )
        marker = navigation.measure_marker(
            self.T_tracker_base @ T_base_tool @ _tool_marker(), TRACKER, self.num_frames, key=second
        )
        return navigation.tool_in_patient(patient, marker, self.T_marker_tool)

    def error(self, T_base_tool: SE3, T_patient_goal: SE3) -> jax.Array:
        """Compute the true distance (mm) and angle (rad) of the tool from its goal."""
        T_patient_tool = self.T_base_patient.inverse() @ T_base_tool
        return navigation.error_of(T_patient_tool.inverse() @ T_patient_goal)


def place_wire(
    path: NeedlePath,
    T_world_target: SE3,
    T_base_world: SE3,
    *,
    key: jax.Array,
    num_frames: int = navigation.NUM_FRAMES,
    options: LoopOptions = LoopOptions(),
    calibration: float = 1.0,
) -> WirePlacement:
    """Simulate the placement of a wire along a path in the frame of the bi-planar target.

    The patient's marker is 200 mm from the vertebra, the robot's marker 200 mm from the tool point.
    The tracker measures the target during imaging and the tool during positioning. The robot's
    first command uses its nominal kinematics, which have errors. `calibration` scales the errors of
    the two fixed frames on the robot.
    """
    keys = jax.random.split(key, 10)
    setup = _draw_setup(T_world_target, T_base_world, keys[:4], num_frames, calibration)
    known_target, T_patient_target = _measure_target(setup, T_world_target, keys[4:7], calibration)

    goal = _standoff(navigation.path_in_base(path, T_patient_target, SE3.identity()))
    start = _standoff(navigation.path_in_base(path, tool_frame(jnp.array(SHOT)), known_target))
    command = navigation.tool_pose_of(start)

    def measure(command: jax.Array, key: jax.Array) -> SE3:
        move_key, tracker_key = jax.random.split(key)
        return setup.measured_tool(setup.reached(command, move_key), tracker_key).inverse() @ goal

    history, status = navigation.close_loop(command, measure, _robot(), options, key=keys[7])
    last = setup.reached(history.final.command, keys[8])
    begin, tip = _wire_ends(T_base_world.inverse() @ last, path.length)
    return WirePlacement(
        entry_point=begin,
        target_point=tip,
        open_error=setup.error(setup.reached(command, keys[8]), goal),
        loop_error=setup.error(last, goal),
        measured=history.errors,
        measurements=history.final.measurements,
        status=status,
    )


def _draw_setup(
    T_world_target: SE3, T_base_world: SE3, keys: jax.Array, num_frames: int, calibration: float
) -> _Setup:
    """Draw a robot with structure errors, a marker on the patient, and a tracker pose."""
    T_tracker_base = SE3.from_rotation_and_translation(
        SO3.exp(jax.random.normal(keys[2], (3,))), jnp.array([300.0, -200.0, 1800.0])
    )
    return _Setup(
        built=perturbed(_robot(), BUILT_MM, BUILT_RAD, key=keys[0]),
        T_base_world=T_base_world,
        T_base_patient=T_base_world @ _patient_marker(T_world_target, keys[1]),
        T_tracker_base=T_tracker_base,
        T_marker_tool=_tool_marker().inverse() @ _small_error(keys[3], calibration),
        num_frames=num_frames,
    )


def _measure_target(
    setup: _Setup, T_world_target: SE3, keys: jax.Array, calibration: float
) -> tuple[SE3, SE3]:
    """T_tool_target and T_patient_target as measured during imaging, when the robot holds the
    target and the tracker measures the tool."""
    held = setup.reached(jnp.array(SHOT), keys[0])
    T_tool_target = held.inverse() @ setup.T_base_world @ T_world_target
    known = T_tool_target @ _small_error(keys[1], calibration)
    return known, setup.measured_tool(held, keys[2]) @ known


def _wire_ends(T_world_tool: SE3, length: jax.Array) -> list[jax.Array]:
    """Points of the wire's axis at the start and the end of the path, in the world."""
    down = jnp.array([0.0, 0.0, -1.0])
    return [T_world_tool.apply(down * d) for d in (STANDOFF_MM, STANDOFF_MM + length)]


def _standoff(path: NeedlePath) -> SE3:
    """Tool frame at the standoff before a path's entry."""
    frame = navigation.path_frame(path.entry_point, path.target_point)
    return frame @ SE3.from_translation(jnp.array([0.0, 0.0, STANDOFF_MM]))


def _tool_marker() -> SE3:
    """T_tool_marker: 200 mm from the tool point, along the tool."""
    return SE3.from_translation(jnp.array([0.0, 0.0, LEVER_MM]))


def _patient_marker(T_world_target: SE3, key: jax.Array) -> SE3:
    """T_world_marker: 200 mm along the spine from the target's middle, with random orientation."""
    turn = SO3.exp(0.5 * jax.random.normal(key, (3,)))
    middle = T_world_target.translation() + jnp.array([0.0, 0.0, LEVER_MM])
    return SE3.from_rotation_and_translation(turn, middle)


def _small_error(key: jax.Array, scale: float) -> SE3:
    """Draw the error of a calibrated frame."""
    size = scale * jnp.array([*[CALIBRATION_MM] * 3, *[CALIBRATION_RAD] * 3])
    return SE3.exp(size * jax.random.normal(key, (6,)))


def closed_loop_study(count: int, seed: int) -> dict[str, WirePlacement]:
    """Simulate `count` robots that place a wire along an exactly known pedicle path.

    Returns the placements (leading axis: robots) with 60 frames and with one frame per measurement,
    by that name. Fixed frames on the robot are exact, so that only errors of the loop remain.
    """
    # In the target's frame: x to the patient's left, y to the feet, z to the back.
    ends = jnp.array([[20.0, 0.0, 45.0], [8.0, 3.0, 5.0]])
    path = NeedlePath(ends[0], ends[1], jnp.asarray(2.5))
    T_world_target = SE3.from_rotation(transforms.view_rotation("AP"))
    T_base_world = robot_base_for(navigation.path_in_base(path, T_world_target, SE3.identity()))
    keys = jax.random.split(jax.random.key(seed), count)

    def placements(num_frames: int, options: LoopOptions) -> WirePlacement:
        def one(key: jax.Array) -> WirePlacement:
            return place_wire(
                path,
                T_world_target,
                T_base_world,
                key=key,
                num_frames=num_frames,
                options=options,
                calibration=0.0,
            )

        return jax.jit(jax.vmap(one))(keys)

    return {
        "60 frames": placements(navigation.NUM_FRAMES, LoopOptions()),
        "one frame": placements(1, SINGLE_FRAME),
    }


def closed_loop_statistics(placements: WirePlacement) -> dict[str, Any]:
    """Summarise the true errors of many placements (leading axis), before and after the loop."""
    settled = np.asarray(placements.status) == 0
    mm, deg = np.asarray(placements.loop_error).T * np.array([[1.0], [180.0 / np.pi]])
    within = settled & (mm <= LOOP_TOLERANCE_MM) & (deg <= LOOP_TOLERANCE_DEG)
    measurements = np.asarray(placements.measurements)
    return {
        "robots": len(settled),
        "open_mean_mm": float(np.mean(placements.open_error[:, 0])),
        **_mean_and_max(mm[settled], "mm"),
        **_mean_and_max(deg[settled], "deg"),
        "settled_fraction": float(settled.mean()),
        "within_tolerance_fraction": float(within.mean()),
        "measurements_mean": float(measurements.mean()),
        "measurements_max": int(measurements.max()),
    }


def _mean_and_max(errors: np.ndarray, unit: str) -> Mapping[str, float]:
    found = len(errors) > 0
    return {
        f"mean_{unit}": float(errors.mean()) if found else np.nan,
        f"max_{unit}": float(errors.max()) if found else np.nan,
    }
