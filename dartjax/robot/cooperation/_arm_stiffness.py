"""How stiff the operator's arm is, from force and motion, and the damping that keeps a stiff
arm on the robot stable."""

from typing import cast

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import signal

from dartjax._types import Point, Scalar

ESTIMATE_STEP_S = 0.01
MIN_STIFFNESS, MAX_STIFFNESS = 20.0, 2000.0  # N/m, what an arm can be
_FORGET = 0.98  # half a second of memory
_FALL_S = 3.0  # an arm may stiffen at once, but is believed to slacken only slowly
_MIN_MOTION_MM = 0.02
_FIRST_COVARIANCE, _MAX_COVARIANCE = 1e6, 1e7
# What an operator means to do is slower than this band, tremor faster; in between an arm is
# a spring and a damper.
_BAND_HZ = (1.5, 5.0)
_FILTER = signal.butter(2, _BAND_HZ, "bandpass", fs=1.0 / ESTIMATE_STEP_S)
_NUMERATOR, _DENOMINATOR = cast("tuple[np.ndarray, np.ndarray]", _FILTER)


class LeastSquares(eqx.Module):
    """State of recursive least squares of y = phi . theta with forgetting."""

    theta: Float[Array, "2"]
    covariance: Float[Array, "2 2"]


def least_squares_step(
    state: LeastSquares, phi: Float[Array, "2"], y: Scalar, forget: float
) -> LeastSquares:
    """k = P phi / (forget + phi' P phi), theta += k (y - phi' theta), P = (P - k phi' P) / forget.

    The covariance is scaled down where its trace passes 1e7, so that silence does not blow it up.
    """
    spread = state.covariance @ phi
    gain = spread / (forget + phi @ spread)
    theta = state.theta + gain * (y - phi @ state.theta)
    covariance = (state.covariance - jnp.outer(gain, spread)) / forget
    shrink = jnp.minimum(1.0, _MAX_COVARIANCE / jnp.trace(covariance))
    return LeastSquares(theta, shrink * 0.5 * (covariance + covariance.T))


class ArmEstimate(eqx.Module):
    """An operator's arm as known so far, and the filters behind it."""

    stiffness: Scalar  # N/m, falls slowly
    squares: LeastSquares  # stiffness N/m and damping N s/m
    past_inputs: Float[Array, "4 6"]  # force N and position mm, newest first
    past_outputs: Float[Array, "4 6"]


def start_arm_estimate(stiffness: Scalar | float, force: Point, position: Point) -> ArmEstimate:
    """An estimate before the first motion: `stiffness` in N/m, with the robot at rest."""
    stiffness = jnp.asarray(stiffness, position.dtype)
    squares = LeastSquares(
        jnp.stack([stiffness, jnp.zeros_like(stiffness)]),
        jnp.diag(jnp.array([_FIRST_COVARIANCE, _FIRST_COVARIANCE], position.dtype)),
    )
    now = jnp.concatenate([force, position])
    return ArmEstimate(
        stiffness, squares, jnp.tile(now[None], (4, 1)), jnp.zeros((4, 6), position.dtype)
    )


def arm_estimate_step(state: ArmEstimate, force: Point, position: Point) -> ArmEstimate:
    """Take in the operator's force on the robot (N) and the tool's position (mm), every 10 ms.

    Both pass the same band of 1.5 to 5 Hz; then force = -K position - B velocity along the
    motion is fitted by recursive least squares (forgetting 0.98). Where the tool moves less
    than 0.02 mm in that band, nothing is learned. The stiffness is kept in [20, 2000] N/m, and
    falls no faster than by a factor e in 3 s of motion.
    """
    now = jnp.concatenate([force, position])
    taps_in, taps_out = (jnp.asarray(t, now.dtype) for t in (_NUMERATOR, _DENOMINATOR))
    inputs = jnp.concatenate([now[None], state.past_inputs])
    filtered = taps_in @ inputs - taps_out[1:] @ state.past_outputs
    before = state.past_outputs[0]
    velocity = (filtered[3:] - before[3:]) / ESTIMATE_STEP_S / 1000.0
    squares = _along_motion(state.squares, filtered[:3], filtered[3:] / 1000.0, velocity)
    moved = jnp.max(jnp.abs(filtered[3:])) > _MIN_MOTION_MM
    theta = jnp.where(moved, squares.theta, state.squares.theta)
    covariance = jnp.where(moved, squares.covariance, state.squares.covariance)
    theta = theta.at[0].set(jnp.clip(theta[0], MIN_STIFFNESS, MAX_STIFFNESS))
    outputs = jnp.concatenate([filtered[None], state.past_outputs[:-1]])
    fallen = state.stiffness * jnp.where(moved, np.exp(-ESTIMATE_STEP_S / _FALL_S), 1.0)
    stiffness = jnp.maximum(theta[0], fallen)
    return ArmEstimate(stiffness, LeastSquares(theta, covariance), inputs[:-1], outputs)


def _along_motion(
    squares: LeastSquares, force: Point, position: Point, velocity: Point
) -> LeastSquares:
    """One row per axis of the base: -force = K position + B velocity. Axes that do not move
    carry no weight by themselves."""
    for axis in range(3):
        phi = jnp.stack([position[axis], velocity[axis]])
        forget = _FORGET if axis == 0 else 1.0
        squares = least_squares_step(squares, phi, -force[axis], forget)
    return squares


def lowest_stable_damping(
    stiffness: Scalar, inertia: Scalar | float, lag: Scalar | float
) -> Scalar:
    """Damping at which M v' + D v = F, followed by a velocity loop of time constant `lag` (s),
    holds an arm of `stiffness` just stable: Routh's condition on
    M lag s^3 + (M + D lag) s^2 + D s + K gives (-M + sqrt(M^2 + 4 lag^2 M K)) / (2 lag).
    SI units (N/m, kg, s, N s/m), or their counterparts about an axis.
    """
    return (-inertia + jnp.sqrt(inertia**2 + 4.0 * lag**2 * inertia * stiffness)) / (2.0 * lag)


def is_stable(
    stiffness: float, damping: float, *, inertia: float, lag: float, arm_damping: float = 0.0
) -> bool:
    """Whether (M + D lag)(D + B) > M lag K: arm stiffness K and damping B against the robot's
    damping D, SI units. Host only."""
    left = (inertia + damping * lag) * (damping + arm_damping)
    return bool(np.isfinite(left) and left > inertia * lag * stiffness)
