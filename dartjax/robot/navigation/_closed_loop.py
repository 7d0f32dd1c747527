"""Closed-loop positioning: measure the error of the tool and correct it until it is small.

Source: [L] equation 24, T_command' = T_command T_tool_path with T_tool_path measured by the
tracker. Rotation about the wire is irrelevant, so only the swing of the wire's axis is corrected. A
robot with a kinematic error of two per cent leaves two per cent of each correction.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dartjax._numerics import normalize
from dartjax._types import Point
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot.arms import HybridRobot, ToolPose, hybrid_inverse, tool_frame, wire_pose
from dartjax.transforms import SE3, SO3

_WIRE = (0.0, 0.0, 1.0)  # the wire's axis in the tool's frame
_GROWTH = 1.5  # growth of the measured error per round above which the loop diverges


class LoopOptions(eqx.Module):
    """Options of the closed loop: tolerances, measurement noise and limits.

    `noise_mm` and `noise_rad` are the standard deviations of a measured tool pose per axis.
    `mismatch` is the fraction of a correction that the robot misses. Corrections larger than
    `max_step_mm` or `max_step_rad` are rejected.
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
    """State of the closed loop. `variance` (mm^2, rad^2) is that of the tool's current error."""

    command: ToolPose  # of the next move, base frame
    variance: Float[Array, "2"]
    error: Float[Array, "2"]  # last measured: mm, rad
    measurements: Int[Array, ""]
    done: Bool[Array, ""]
    status: Status


class LoopHistory(eqx.Module):
    """Final state and every round of a closed loop; rounds after the end repeat the last one."""

    final: LoopState
    commands: Float[Array, "round 5"]  # at which each error was measured
    errors: Float[Array, "round 2"]  # measured: mm, rad


def swing_only(T: SE3, axis: Point) -> SE3:
    """Remove the rotation about `axis` (of any length) from T; nothing for an axis of length 0.

    R = swing twist, with the twist about the axis. The result maps the axis as T does. For a half
    turn perpendicular to the axis the twist is undefined and taken as the identity.
    """
    axis = normalize(axis)
    w, vector = T.rotation().wxyz[0], T.rotation().wxyz[1:]
    along = jnp.dot(vector, axis)
    size = jnp.sqrt(jnp.maximum(w**2 + along**2, 1e-20))
    defined = w**2 + along**2 > 1e-12
    wxyz = jnp.concatenate([w[None], along * axis]) / size
    identity = jnp.zeros_like(wxyz).at[0].set(1.0)
    twist = SO3(jnp.where(defined, wxyz, identity))
    return SE3.from_rotation_and_translation(T.rotation() @ twist.inverse(), T.translation())


def tool_pose_of(T_base_tool: SE3) -> ToolPose:
    """Compute the hybrid robot's pose with this tool point and wire; rotation about the wire is
    ignored."""
    return wire_pose(T_base_tool.translation(), -T_base_tool.rotation().as_matrix()[:, 2])


def closed_loop_correct(
    command: ToolPose, T_tool_path: SE3, gain: Float[Array, "2"] | None = None
) -> ToolPose:
    """Compute the next command, [L] equation 24.

    `gain` (of shift and tilt) is 1 by default; a lower gain reduces the effect of noise.
    """
    shift_gain, tilt_gain = jnp.ones(2) if gain is None else gain
    swing = swing_only(T_tool_path, jnp.array(_WIRE))
    correction = SE3.from_rotation_and_translation(
        SO3.exp(tilt_gain * swing.rotation().log()), shift_gain * swing.translation()
    )
    return tool_pose_of(tool_frame(command) @ correction)


def error_of(T_tool_path: SE3) -> Float[Array, "2"]:
    """Compute the remaining distance (mm) and tilt (rad) from the tool to the path."""
    swing = swing_only(T_tool_path, jnp.array(_WIRE))
    tilt = swing.rotation().log()
    squares = jnp.array([jnp.sum(swing.translation() ** 2), jnp.sum(tilt**2)])
    return jnp.sqrt(squares)


def start_loop(command: ToolPose) -> LoopState:
    """Create the state before the first measurement, which has gain 1."""
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
    """Compute the next command from one measured error.

    The gain is that of a Kalman filter, P / (P + R): 1 for the first measurement, then less, since
    the tool's position contains the noise of the last one. A correction below the tolerance ends
    the loop; it is applied without another measurement. Status, with an unchanged command:
    CLOSURE_TOO_LARGE for an error that grows by half or exceeds the largest step, BAD_PARAMETER for
    one that is not finite, the status of `hybrid_inverse` for a command beyond the robot's limits.
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
        (StatusCode.CLOSURE_TOO_LARGE, ~jnp.all((error <= step) & (error <= allowed))),
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
    """Run the closed loop: command, measure and correct, at most `max_rounds` times.

    `measure(command, key)` moves the tool and returns T_tool_path. Execute the final command at the
    end. The status is also CLOSURE_TOO_LARGE if the tolerance is not reached.
    """

    def one_round(state: LoopState, round_key: PRNGKeyArray):
        after = closed_loop_step(state, measure(state.command, round_key), robot, options)
        return after, (state.command, after.error)

    keys = jax.random.split(key, options.max_rounds)
    final, (commands, errors) = jax.lax.scan(one_round, start_loop(command), keys)
    status = jnp.where(
        (final.status == StatusCode.OK) & ~final.done,
        jnp.int32(StatusCode.CLOSURE_TOO_LARGE),
        final.status,
    )
    return LoopHistory(final, commands, errors), status
