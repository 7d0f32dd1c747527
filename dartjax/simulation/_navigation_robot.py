"""The robot of `navigate`: markers, tracker, and a wire placed by closed-loop positioning."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dartjax import transforms
from dartjax.observations import NeedlePath
from dartjax.robot import navigation
from dartjax.robot.arms import hybrid_forward, hybrid_inverse, perturbed, spine_hybrid, tool_frame
from dartjax.robot.navigation import LoopOptions, Tracker
from dartjax.simulation._patient import PRONE, WORKSPACE_CENTER_MM
from dartjax.transforms import SE3, SO3

ROBOT = spine_hybrid()
TRACKER = Tracker()
BUILT_MM, BUILT_RAD = 1.8, 3.5e-3  # errors of the robot's structure
REPEATABILITY_MM = 0.01
LEVER_MM = 200.0  # from each marker to the tool
STANDOFF_MM = 10.0  # of the tool point before the entry
LEVEL_TABLE_RAD, TABLE_TILT_RAD = 0.6, 0.25  # steepest path over a level table; most tilt
SHOT = (625.0, 475.0, -100.0, 0.0, 0.0)  # pose in which the robot holds the target
CALIBRATION_MM, CALIBRATION_RAD = 0.05, 2e-4  # of marker to tool and marker to target, per axis
SINGLE_FRAME = LoopOptions(noise_mm=0.285, noise_rad=1.24e-3)


class Placed(NamedTuple):
    """A wire after positioning, and how the loop went."""

    entry_point: jax.Array  # world, on the wire's axis where the path begins
    target_point: jax.Array
    open_error: jax.Array  # (mm, rad) of the tool from its goal under the first command
    loop_error: jax.Array  # and under the last one
    measured: jax.Array  # (round, 2): what the loop read
    measurements: jax.Array
    status: jax.Array


def base_of(path: NeedlePath) -> SE3:
    """T_base_world of a prone patient with this entry amid the workspace. The robot reaches paths
    inclined by up to 43 degrees toward head or feet; beyond 34 degrees the table is tilted."""
    axis = path.target_point - path.entry_point
    inclination = jnp.arctan2(axis[2], jnp.hypot(axis[0], axis[1]))
    excess = inclination - jnp.clip(inclination, -LEVEL_TABLE_RAD, LEVEL_TABLE_RAD)
    tilt = SO3.from_x_radians(-jnp.clip(excess, -TABLE_TILT_RAD, TABLE_TILT_RAD))
    turn = SO3.from_matrix(jnp.array(PRONE)) @ tilt
    center = jnp.array(WORKSPACE_CENTER_MM)
    return SE3.from_rotation_and_translation(turn, center - turn.apply(path.entry_point))


def place(
    path: NeedlePath,
    T_world_target: SE3,
    T_base_world: SE3,
    *,
    key: jax.Array,
    num_frames: int = navigation.NUM_FRAMES,
    options: LoopOptions = LoopOptions(),
    calibration: float = 1.0,
) -> Placed:
    """Place a wire along a path known in the frame of the bi-planar target.

    The patient's marker is fixed 200 mm from the vertebra, the robot's 200 mm up the tool. The
    tracker measures the target when the images are taken and the tool when it is positioned; the
    robot's first command relies on its own, wrong, kinematics. `calibration` scales the errors
    of the two fixed frames on the robot.
    """
    keys = iter(jax.random.split(key, 10))
    built = perturbed(ROBOT, BUILT_MM, BUILT_RAD, key=next(keys))
    T_base_patient = T_base_world @ _patient_marker(T_world_target, next(keys))
    T_tracker_base = SE3.from_rotation_and_translation(
        SO3.exp(jax.random.normal(next(keys), (3,))), jnp.array([300.0, -200.0, 1800.0])
    )
    T_tool_marker = SE3.from_translation(jnp.array([0.0, 0.0, LEVER_MM]))
    T_marker_tool = T_tool_marker.inverse() @ _small(next(keys), calibration)

    def reached(command: jax.Array, own: jax.Array) -> SE3:
        """T_base_tool where the robot really goes."""
        q, _ = hybrid_inverse(command, ROBOT)
        noise = REPEATABILITY_MM * jax.random.normal(own, (3,))
        return tool_frame(hybrid_forward(q.at[:3].add(noise), built)[0])

    def tool_seen(T_base_tool: SE3, own: jax.Array) -> SE3:
        """T_patientmarker_tool as measured."""
        first, second = jax.random.split(own)
        patient = navigation.measure_marker(
            T_tracker_base @ T_base_patient, TRACKER, num_frames, key=first
        )
        marker = navigation.measure_marker(
            T_tracker_base @ T_base_tool @ T_tool_marker, TRACKER, num_frames, key=second
        )
        return navigation.tool_in_patient(patient, marker, T_marker_tool)

    shot = jnp.array(SHOT)
    held = reached(shot, next(keys))
    T_tool_target = held.inverse() @ T_base_world @ T_world_target
    known_target = T_tool_target @ _small(next(keys), calibration)
    T_patient_target = tool_seen(held, next(keys)) @ known_target

    goal = _goal(navigation.path_in_base(path, T_patient_target, SE3.identity()))
    start = _goal(navigation.path_in_base(path, tool_frame(shot), known_target))
    command = navigation.tool_pose_of(start)

    def measure(command: jax.Array, own: jax.Array) -> SE3:
        moving, seeing = jax.random.split(own)
        return tool_seen(reached(command, moving), seeing).inverse() @ goal

    history, status = navigation.close_loop(command, measure, ROBOT, options, key=next(keys))
    for_last = next(keys)
    last = reached(history.final.command, for_last)
    tool_in_world = T_base_world.inverse() @ last
    length = path.length
    ends = [jnp.array([0.0, 0.0, -1.0]) * d for d in (STANDOFF_MM, STANDOFF_MM + length)]
    opened, left = (
        navigation.error_of((T_base_patient.inverse() @ T).inverse() @ goal)
        for T in (reached(command, for_last), last)
    )
    begin, tip = (tool_in_world.apply(end) for end in ends)
    return Placed(
        entry_point=begin,
        target_point=tip,
        open_error=opened,
        loop_error=left,
        measured=history.errors,
        measurements=history.final.measurements,
        status=status,
    )


def _goal(path: NeedlePath) -> SE3:
    """Tool frame at the standoff before a path's entry."""
    frame = navigation.path_frame(path.entry_point, path.target_point)
    return frame @ SE3.from_translation(jnp.array([0.0, 0.0, STANDOFF_MM]))


def _patient_marker(T_world_target: SE3, key: jax.Array) -> SE3:
    """T_world_marker: 200 mm along the spine from the target's middle, turned at random."""
    turn = SO3.exp(0.5 * jax.random.normal(key, (3,)))
    middle = T_world_target.translation() + jnp.array([0.0, 0.0, LEVER_MM])
    return SE3.from_rotation_and_translation(turn, middle)


def _small(key: jax.Array, scale: float) -> SE3:
    """Error of a calibrated frame."""
    size = scale * jnp.array([*[CALIBRATION_MM] * 3, *[CALIBRATION_RAD] * 3])
    return SE3.exp(size * jax.random.normal(key, (6,)))


def study(count: int, seed: int) -> dict[str, Placed]:
    """Many robots, each to a pedicle path known without error: 60 frames a measurement, and one.
    Fixed frames on the robot are known exactly, so that the loop alone is seen."""
    # In the target's frame: x to the patient's left, y to the feet, z to the back.
    ends = jnp.array([[20.0, 0.0, 45.0], [8.0, 3.0, 5.0]])
    path = NeedlePath(ends[0], ends[1], jnp.asarray(2.5))
    T_world_target = SE3.from_rotation(transforms.view_rotation("AP"))
    world = navigation.path_in_base(path, T_world_target, SE3.identity())
    keys = jax.random.split(jax.random.key(seed), count)
    arms = {"60 frames": (navigation.NUM_FRAMES, LoopOptions()), "one frame": (1, SINGLE_FRAME)}
    return {
        name: jax.jit(
            jax.vmap(
                lambda key, n=frames, o=options: place(
                    path,
                    T_world_target,
                    base_of(world),
                    key=key,
                    num_frames=n,
                    options=o,
                    calibration=0.0,
                )
            )
        )(keys)
        for name, (frames, options) in arms.items()
    }
