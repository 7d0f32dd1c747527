"""Closed-loop positioning: measure where the tool is, feed the error back, until it is small.

Source: [L] equation 24, T_command' = T_command T_tool_path with T_tool_path measured through the
tracker. The wire may turn about itself, so only the swing of its axis is corrected. A robot whose
kinematics are off by two per cent leaves two per cent of each correction.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dartjax._types import Point
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot.arms import HybridRobot, ToolPose, hybrid_inverse, tool_frame, wire_pose
from dartjax.transforms import SE3, SO3

_WIRE = (0.0, 0.0, 1.0)  # the wire's axis in the tool's frame
_GROWTH = 1.5  # of the measured error from one round to the next: it diverges


class LoopOptions(eqx.Module):
    """When to stop, and how much to believe a measurement.

    `noise_mm` and `noise_rad` are the standard deviations of a measured tool per axis,
    `mismatch` the share of a correction that the robot misses. Larger corrections than
    `max_step` are refused.
    """

    tolerance_mm: float = 0.1
    tolerance_rad: float = 8.7e-4  # 0.05 degrees
    noise_mm: float = 0.04
    noise_rad: float = 1.6e-4
    mismatch: float = 0.02
    max_step_mm: float = 20.0
    max_step_rad: float = 0.09  # 5 degrees
    max_rounds: int = eqx.field(static=True, default=5)


class LoopState(eqx.Module):
    """Where the loop is. `variance` (mm^2, rad^2) is that of the tool's error as now known."""

    command: ToolPose  # of the next move, base frame
    variance: Float[Array, "2"]
    error: Float[Array, "2"]  # last measured: mm, rad
    measurements: Int[Array, ""]
    done: Bool[Array, ""]
    status: Status


class LoopHistory(eqx.Module):
    """The loop's end and every round of it; rounds after the end repeat it."""

    final: LoopState
    commands: Float[Array, "round 5"]  # under which each measurement was made
    errors: Float[Array, "round 2"]  # measured: mm, rad


def swing_only(T: SE3, axis: Point) -> SE3:
    """T without its turn about `axis` (unit): R = swing twist, twist about the axis. The axis
    itself is carried where T carries it. A half turn across the axis has no twist."""
    w, vector = T.rotation().wxyz[0], T.rotation().wxyz[1:]
    along = jnp.dot(vector, axis)
    size = jnp.sqrt(jnp.maximum(w**2 + along**2, 1e-20))
    defined = w**2 + along**2 > 1e-12
    wxyz = jnp.concatenate([w[None], along * axis]) / size
    identity = jnp.zeros_like(wxyz).at[0].set(1.0)
    twist = SO3(jnp.where(defined, wxyz, identity))
    return SE3.from_rotation_and_translation(T.rotation() @ twist.inverse(), T.translation())


def tool_pose_of(T_base_tool: SE3) -> ToolPose:
    """The hybrid robot's pose with this tool point and wire; any turn about the wire is left
    out."""
    return wire_pose(T_base_tool.translation(), -T_base_tool.rotation().as_matrix()[:, 2])


def closed_loop_correct(
    command: ToolPose, T_tool_path: SE3, gain: Float[Array, "2"] | None = None
) -> ToolPose:
    """[L] equation 24: the next command. `gain` (of shift, of tilt) is 1 unless the measurement
    is to be trusted less."""
    shift_gain, tilt_gain = jnp.ones(2) if gain is None else gain
    swing = swing_only(T_tool_path, jnp.array(_WIRE))
    part = SE3.from_rotation_and_translation(
        SO3.exp(tilt_gain * swing.rotation().log()), shift_gain * swing.translation()
    )
    return tool_pose_of(tool_frame(command) @ part)


def error_of(T_tool_path: SE3) -> Float[Array, "2"]:
    """Distance (mm) and tilt (rad) that are still to go."""
    swing = swing_only(T_tool_path, jnp.array(_WIRE))
    tilt = swing.rotation().log()
    squares = jnp.array([jnp.sum(swing.translation() ** 2), jnp.sum(tilt**2)])
    return jnp.sqrt(squares)


def start_loop(command: ToolPose) -> LoopState:
    """Before the first measurement, of which everything is believed."""
    return LoopState(
        command,
        jnp.full(2, jnp.inf),
        jnp.full(2, jnp.inf),
        jnp.int32(0),
        jnp.asarray(False),
        jnp.int32(StatusCode.OK),
    )


def closed_loop_step(
    state: LoopState, T_tool_path: SE3, robot: HybridRobot, options: LoopOptions = LoopOptions()
) -> LoopState:
    """One measured error into the next command.

    The gain is a Kalman filter's, P / (P + R): 1 for the first measurement, then less, since the
    noise of the last one is still in the tool's place. A correction below the tolerance ends the
    loop: it is made, but need not be measured. Status, with the command left as it was:
    CLOSURE_TOO_LARGE for an error that grows by half or exceeds `max_step`, BAD_PARAMETER for
    one that is not finite, the status of `hybrid_inverse` for a command out of the robot's limits.
    """
    error = error_of(T_tool_path)
    noise = jnp.array([options.noise_mm, options.noise_rad]) ** 2
    gain = jnp.where(jnp.isinf(state.variance), 1.0, 1.0 / (1.0 + noise / state.variance))
    command = closed_loop_correct(state.command, T_tool_path, gain)
    _, limits = hybrid_inverse(command, robot)
    step = jnp.array([options.max_step_mm, options.max_step_rad])
    allowed = _GROWTH * state.error + 5.0 * jnp.sqrt(noise)
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~jnp.all(jnp.isfinite(error))),
        (StatusCode.CLOSURE_TOO_LARGE, jnp.any(error > step) | jnp.any(error > allowed)),
    )
    status = jnp.where(status == StatusCode.OK, limits, status)
    tolerance = jnp.array([options.tolerance_mm, options.tolerance_rad])
    moved = gain * error
    after = gain * noise + (options.mismatch * moved) ** 2
    active = (state.status == StatusCode.OK) & ~state.done
    good = active & (status == StatusCode.OK)
    return LoopState(
        command=jnp.where(good, command, state.command),
        variance=jnp.where(good, after, state.variance),
        error=jnp.where(active, error, state.error),
        measurements=state.measurements + active,
        done=state.done | (good & jnp.all(moved < tolerance)),
        status=jnp.where(active, status, state.status),
    )


def close_loop(
    command: ToolPose,
    measure: Callable[[ToolPose, PRNGKeyArray], SE3],
    robot: HybridRobot,
    options: LoopOptions = LoopOptions(),
    *,
    key: PRNGKeyArray,
) -> tuple[LoopHistory, Status]:
    """Command, measure, correct, at most `max_rounds` times.

    `measure(command, key)` moves the tool and returns T_tool_path. The final command is the one
    to make at the end. CLOSURE_TOO_LARGE too when the tolerance is not reached.
    """

    def one(state: LoopState, own: PRNGKeyArray):
        after = closed_loop_step(state, measure(state.command, own), robot, options)
        return after, (state.command, after.error)

    keys = jax.random.split(key, options.max_rounds)
    final, (commands, errors) = jax.lax.scan(one, start_loop(command), keys)
    status = jnp.where(
        (final.status == StatusCode.OK) & ~final.done,
        jnp.int32(StatusCode.CLOSURE_TOO_LARGE),
        final.status,
    )
    return LoopHistory(final, commands, errors), status
