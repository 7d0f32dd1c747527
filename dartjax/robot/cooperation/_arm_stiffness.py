"""Estimate of the operator's arm stiffness from force and motion, and the lowest stable damping."""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import signal

from dartjax._types import Point, Scalar

ESTIMATE_STEP_S = 0.01
MIN_STIFFNESS, MAX_STIFFNESS = 20.0, 2000.0  # N/m, range of human arms
_FORGET = 0.98  # forgetting factor: a memory of half a second
_FALL_S = 3.0  # time constant of a falling estimate; a rising one follows at once
_MIN_MOTION_MM = 0.02
_FIRST_COVARIANCE, _MAX_COVARIANCE = 1e6, 1e7
# Intended motion is slower than this band and tremor is faster; within the band the arm acts as a
# spring and a damper.
_BAND_HZ = (1.5, 5.0)
_FILTER = signal.butter(2, _BAND_HZ, "bandpass", fs=1.0 / ESTIMATE_STEP_S)
_NUMERATOR, _DENOMINATOR = cast("tuple[np.ndarray, np.ndarray]", _FILTER)


class RecursiveLeastSquares(eqx.Module):
    """State of recursive least squares for y = phi . theta with forgetting."""

    theta: Float[Array, "2"]
    covariance: Float[Array, "2 2"]


def recursive_least_squares_step(
    state: RecursiveLeastSquares, phi: Float[Array, "2"], y: Scalar, forget: float
) -> RecursiveLeastSquares:
    """Update a recursive least-squares estimate with one equation y = phi . theta.

    k = P phi / (forget + phi' P phi), theta += k (y - phi' theta), P = (P - k phi' P) / forget.
    The covariance is scaled so that its trace stays below 1e7, which bounds it without excitation.
    An equation that is not finite changes nothing.
    """
    finite = jnp.all(jnp.isfinite(phi)) & jnp.isfinite(y)
    spread = state.covariance @ phi
    gain = spread / (forget + phi @ spread)
    theta = state.theta + gain * (y - phi @ state.theta)
    covariance = (state.covariance - jnp.outer(gain, spread)) / forget
    shrink = jnp.minimum(1.0, _MAX_COVARIANCE / jnp.trace(covariance))
    updated = RecursiveLeastSquares(theta, shrink * 0.5 * (covariance + covariance.T))
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)


class ArmEstimate(eqx.Module):
    """Estimate of an operator's arm, with the state of its filters."""

    stiffness: Scalar  # N/m; falls slowly
    squares: RecursiveLeastSquares  # of stiffness (N/m) and damping (N s/m)
    past_inputs: Float[Array, "4 6"]  # force N and position mm, newest first
    past_outputs: Float[Array, "4 6"]


def start_arm_estimate(stiffness: Scalar | float, force: Point, position: Point) -> ArmEstimate:
    """Create the estimate before the first motion, while the robot is at rest, with an initial
    `stiffness` in N/m."""
    stiffness = jnp.asarray(stiffness, position.dtype)
    squares = RecursiveLeastSquares(
        jnp.stack([stiffness, jnp.zeros_like(stiffness)]),
        jnp.diag(jnp.array([_FIRST_COVARIANCE, _FIRST_COVARIANCE], position.dtype)),
    )
    now = jnp.concatenate([force, position])
    return ArmEstimate(
        stiffness, squares, jnp.tile(now[None], (4, 1)), jnp.zeros((4, 6), position.dtype)
    )


def arm_estimate_step(state: ArmEstimate, force: Point, position: Point) -> ArmEstimate:
    """Update the estimate with the operator's force on the robot (N) and the tool's position (mm).

    For translation only. To be called every 10 ms. Both signals pass a band-pass of 1.5 to 5 Hz;
    then force = -K position - B velocity is fitted by recursive least squares (forgetting 0.98). If
    the tool moves less than 0.02 mm in that band, the estimate stays. The stiffness is limited to
    [20, 2000] N/m and falls by at most a factor e in 3 s of motion. A sample that is not finite is
    replaced by the last one, so the estimate and its filters stay finite.
    """
    now = jnp.concatenate([force, position])
    now = jnp.where(jnp.all(jnp.isfinite(now)), now, state.past_inputs[0])
    taps_in, taps_out = (jnp.asarray(t, now.dtype) for t in (_NUMERATOR, _DENOMINATOR))
    inputs = jnp.concatenate([now[None], state.past_inputs])
    filtered = taps_in @ inputs - taps_out[1:] @ state.past_outputs
    before = state.past_outputs[0]
    velocity = (filtered[3:] - before[3:]) / ESTIMATE_STEP_S / 1000.0
    squares = _fit_all_axes(state.squares, filtered[:3], filtered[3:] / 1000.0, velocity)
    moved = jnp.any(jnp.abs(filtered[3:]) > _MIN_MOTION_MM)
    theta = jnp.where(moved, squares.theta, state.squares.theta)
    covariance = jnp.where(moved, squares.covariance, state.squares.covariance)
    theta = theta.at[0].set(jnp.clip(theta[0], MIN_STIFFNESS, MAX_STIFFNESS))
    outputs = jnp.concatenate([filtered[None], state.past_outputs[:-1]])
    fallen = state.stiffness * jnp.where(moved, np.exp(-ESTIMATE_STEP_S / _FALL_S), 1.0)
    stiffness = jnp.maximum(theta[0], fallen)
    return ArmEstimate(stiffness, RecursiveLeastSquares(theta, covariance), inputs[:-1], outputs)


def _fit_all_axes(
    squares: RecursiveLeastSquares, force: Point, position: Point, velocity: Point
) -> RecursiveLeastSquares:
    """One equation per axis of the base: -force = K position + B velocity. An axis without motion
    has no influence."""
    for axis in range(3):
        phi = jnp.stack([position[axis], velocity[axis]])
        forget = _FORGET if axis == 0 else 1.0
        squares = recursive_least_squares_step(squares, phi, -force[axis], forget)
    return squares


def lowest_stable_damping(
    stiffness: Scalar, inertia: Scalar | float, lag: Scalar | float
) -> Scalar:
    """Compute the lowest damping that is stable with an arm of `stiffness` on the robot.

    For M v' + D v = F followed by a velocity loop of time constant `lag` (s), Routh's condition on
    M lag s^3 + (M + D lag) s^2 + D s + K gives (-M + sqrt(M^2 + 4 lag^2 M K)) / (2 lag).
    SI units (N/m, kg, s, N s/m), or their rotational counterparts.
    """
    return (-inertia + jnp.sqrt(inertia**2 + 4.0 * lag**2 * inertia * stiffness)) / (2.0 * lag)


def is_stable(
    stiffness: float, damping: float, *, inertia: float, lag: float, arm_damping: float = 0.0
) -> bool:
    """Return whether robot and arm are stable: (M + D lag)(D + B) > M lag K.

    K and B are the stiffness and damping of the arm, D the damping of the robot; SI units. Host
    only.
    """
    left = (inertia + damping * lag) * (damping + arm_damping)
    return bool(np.isfinite(left) and left > inertia * lag * stiffness)
