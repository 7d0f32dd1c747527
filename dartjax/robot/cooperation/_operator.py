"""Simulation of an operator's hand that drags the robot along an intended motion.

The hand follows an intended motion x_d(t) with a spring and a damper. It adds a feed-forward force
for the resistance learned in earlier trials of the same motion, tremor, and a correction c of the
position error, which it sees with a reaction time:

    F = K (x_d + c - x) + B (v_d - v) + D_felt v_d + tremor
    c' = (x_d - x)(t - 0.2 s) / 1 s

Lengths mm, forces N, stiffness N/m, damping N s/m, time s.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._numerics import safe_norm
from dartjax._types import Point, Points, Scalar
from dartjax.robot._errors import BadParameter
from dartjax.robot._reductions import largest
from dartjax.robot.cooperation._admittance import (
    Admittance,
    ForceFilter,
    admittance_step,
    dead_band,
    filter_step,
)
from dartjax.robot.cooperation._arm_stiffness import (
    ESTIMATE_STEP_S,
    ArmEstimate,
    arm_estimate_step,
    start_arm_estimate,
)
from dartjax.robot.cooperation._damping import DampingLaw, damping_step

STEP_S = 0.001  # of intended motions, and of the simulation
_PER_TICK = round(ESTIMATE_STEP_S / STEP_S)
MM_PER_M = 1000.0
_STEP_TOLERANCE_S = 1e-7
REACTION_S = 0.2  # from seeing an error to correcting it
CORRECTION_TIME_S = 1.0
SEEN_MM = 0.5  # smaller errors are not corrected
FIRST_STIFFNESS = 300.0  # N/m, initial estimate of the arm
FIRST_FELT = 30.0  # N s/m, resistance that a hand expects at first


class Intention(eqx.Module):
    """One intended motion of a hand with its disturbances, sampled every millisecond.

    The number of steps must be a multiple of 10.
    """

    position: Float[Array, "step 3"]  # mm
    velocity: Float[Array, "step 3"]  # mm/s
    tremor: Float[Array, "step 3"]  # N
    noise: Float[Array, "step 3"]  # N, of the sensor, including the bias from the tool's weight


class Drag(eqx.Module):
    """Simulated drag, sampled every 10 ms."""

    position: Float[Array, "*tick 3"]  # mm
    velocity: Float[Array, "*tick 3"]  # mm/s
    force: Float[Array, "*tick 3"]  # of the hand, N
    damping: Float[Array, "*tick"]  # N s/m
    stiffness: Float[Array, "*tick"]  # estimated, N/m
    work: Float[Array, "*tick"]  # integral of |F . v| up to now, J


class _State(eqx.Module):
    position: Point
    command: Point  # commanded velocity
    velocity: Point
    filtered: ForceFilter
    damping: Scalar
    correction: Point
    past_errors: Float[Array, "delay 3"]  # of the last 0.2 s, newest first
    arm: ArmEstimate
    work: Scalar
    force: Point
    measured: Point


def simulate_drag(
    intention: Intention,
    stiffness: Scalar,
    damping: DampingLaw,
    law: Admittance,
    *,
    num_practice: int = 2,
) -> Drag:
    """Simulate `num_practice` + 1 trials of one motion by an arm of `stiffness` N/m.

    Returns the last trial. Before each trial the hand sets D_felt to the work of the previous one
    over the integral of v^2; the robot keeps its estimate of the arm. The arm's own damping
    is B = 0.5 sqrt(K) N s/m (K in N/m). The robot's velocity loop has the time constant `law.lag`.

    The simulation runs in steps of a millisecond, those of the intention. Raises BadParameter if
    `law.step` differs, if the law is for rotation, or if the number of samples is not a multiple of
    10. The result is NaN if `law.step` is an array and differs.
    """
    _check(intention, law)

    def one_trial(
        carry: tuple[Scalar, ArmEstimate], _: None
    ) -> tuple[tuple[Scalar, ArmEstimate], Drag]:
        felt, arm = carry
        drag, last = _trial(intention, stiffness, felt, arm, damping, law)
        return (_remembered_resistance(drag), last), drag

    start = intention.position[0]
    arm = start_arm_estimate(FIRST_STIFFNESS, jnp.zeros(3), start)
    first = (jnp.asarray(FIRST_FELT), arm)
    _, drags = jax.lax.scan(one_trial, first, length=num_practice + 1)
    is_same_step = jnp.abs(law.step - STEP_S) < _STEP_TOLERANCE_S
    return jax.tree.map(lambda leaf: jnp.where(is_same_step, leaf[-1], jnp.nan), drags)


def _check(intention: Intention, law: Admittance) -> None:
    if law.per_si != MM_PER_M:
        raise BadParameter("the law is for rotation: simulated hands move the position")
    if isinstance(law.step, float | int) and not abs(law.step - STEP_S) < _STEP_TOLERANCE_S:
        raise BadParameter(
            f"the law's step is {law.step:g} s: the hands are simulated at {STEP_S:g} s"
        )
    if len(intention.position) % _PER_TICK:
        raise BadParameter(
            f"the intention has {len(intention.position)} samples: give a multiple of {_PER_TICK}"
        )


def _remembered_resistance(drag: Drag) -> Scalar:
    """Resistance that a hand remembers: work over the integral of v^2, N s/m."""
    square = jnp.sum(drag.velocity**2) * 1e-6 * ESTIMATE_STEP_S
    return jnp.clip(drag.work[-1] / jnp.maximum(square, 1e-5), 0.0, 150.0)


def _trial(
    intention: Intention,
    stiffness: Scalar,
    felt: Scalar,
    arm: ArmEstimate,
    damping: DampingLaw,
    law: Admittance,
) -> tuple[Drag, ArmEstimate]:
    def millisecond(state: _State, now: Intention) -> tuple[_State, None]:
        return _advance(state, now, stiffness, felt, damping, law), None

    def tick(state: _State, now: Intention) -> tuple[_State, Drag]:
        state, _ = jax.lax.scan(millisecond, state, now)
        error = now.position[-1] - state.position
        past_errors = jnp.concatenate([error[None], state.past_errors[:-1]])
        arm = arm_estimate_step(state.arm, state.measured, state.position)
        state = eqx.tree_at(lambda s: (s.past_errors, s.arm), state, (past_errors, arm))
        drag = Drag(
            state.position, state.velocity, state.force, state.damping, arm.stiffness, state.work
        )
        return state, drag

    ticks = jax.tree.map(lambda leaf: leaf.reshape(-1, _PER_TICK, 3), intention)
    last, drag = jax.lax.scan(tick, _at_rest(intention.position[0], arm, damping), ticks)
    return drag, last.arm


def _at_rest(position: Point, arm: ArmEstimate, damping: DampingLaw) -> _State:
    zero = jnp.zeros(3)
    arm_at_rest = start_arm_estimate(arm.stiffness, zero, position)
    arm_at_rest = eqx.tree_at(lambda a: a.squares, arm_at_rest, arm.squares)
    return _State(
        position=position,
        command=zero,
        velocity=zero,
        filtered=ForceFilter(zero, zero),
        damping=damping.most,
        correction=zero,
        past_errors=jnp.zeros((round(REACTION_S / ESTIMATE_STEP_S), 3)),
        arm=arm_at_rest,
        work=jnp.zeros(()),
        force=zero,
        measured=zero,
    )


def _advance(
    state: _State,
    now: Intention,
    stiffness: Scalar,
    felt: Scalar,
    damping: DampingLaw,
    law: Admittance,
) -> _State:
    """Advance hand, sensor, damping, admittance and velocity loop by one millisecond."""
    dt = law.step
    force = _hand_force(state, now, stiffness, felt)
    measured = force + now.noise
    filtered = filter_step(state.filtered, measured, law)
    push = dead_band(filtered.second, law.threshold)
    resistance = damping_step(state.damping, push, state.command, state.arm.stiffness, damping, law)
    command, _ = admittance_step(state.command, push, resistance, law)
    velocity = state.velocity + (1.0 - jnp.exp(-dt / law.lag)) * (command - state.velocity)
    delayed_error = state.past_errors[-1]
    corrects = safe_norm(delayed_error) > SEEN_MM
    correction = state.correction + jnp.where(corrects, dt / CORRECTION_TIME_S * delayed_error, 0.0)
    return _State(
        position=state.position + dt * velocity,
        command=command,
        velocity=velocity,
        filtered=filtered,
        damping=resistance,
        correction=correction,
        past_errors=state.past_errors,
        arm=state.arm,
        work=state.work + dt * jnp.abs(jnp.sum(force * velocity)) / 1000.0,
        force=force,
        measured=filtered.second,
    )


def _hand_force(state: _State, now: Intention, stiffness: Scalar, felt: Scalar) -> Point:
    """Force of the hand on the robot, N."""
    spring = stiffness * (now.position + state.correction - state.position)
    damper = 0.5 * jnp.sqrt(stiffness) * (now.velocity - state.velocity)
    return (spring + damper + felt * now.velocity) / 1000.0 + now.tremor


def stop_quality(
    drag: Drag, intention: Intention, direction: Point, stop: Scalar
) -> dict[str, Scalar]:
    """Measure the end of a motion with an intended stop at the time `stop` (s).

    `direction` is the unit vector of the last part of the motion. overshoot_mm: largest distance
    beyond the goal along the direction; tremor_mm: rms of the position minus its Gaussian mean over
    40 ms (passes above 3.3 Hz), in the second after the stop; error_mm: distance to the goal at the
    end; swing_mm: peak to peak of the last 0.5 s. NaN for a drag that is not finite.
    """
    goal = intention.position[-1]
    beyond = (drag.position - goal[None]) @ direction
    time = ESTIMATE_STEP_S * (1.0 + jnp.arange(len(beyond)))
    window = (time > stop) & (time < stop + 1.0)
    jitter = jnp.sum((drag.position - _smooth(drag.position)) ** 2, axis=1)
    last = drag.position[-50:]
    swing = safe_norm(jnp.max(last, 0) - jnp.min(last, 0))
    return {
        "overshoot_mm": jnp.maximum(largest(beyond), 0.0),
        "tremor_mm": jnp.sqrt(jnp.sum(jnp.where(window, jitter, 0.0)) / jnp.sum(window)),
        "error_mm": safe_norm(drag.position[-1] - goal),
        "swing_mm": jnp.where(jnp.all(jnp.isfinite(last)), swing, jnp.nan),
    }


def _smooth(position: Points) -> Points:
    lag = jnp.arange(-12, 13) * ESTIMATE_STEP_S
    kernel = jnp.exp(-0.5 * (lag / 0.04) ** 2)
    kernel = kernel / jnp.sum(kernel)
    padded = jnp.pad(position, ((12, 12), (0, 0)), mode="edge")
    return jnp.stack([jnp.convolve(padded[:, i], kernel, mode="valid") for i in range(3)], axis=1)
