"""Admittance control: from the force of the operator's hand to a velocity of the tool.

The hand moves the position in base axes or the orientation in the axes of joint 5; a button selects
one of them. The same law serves both: `Admittance.per_si` is 1000 for positions in mm and 1 for
angles in rad; everything else is in SI units.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._numerics import safe_norm
from dartjax._types import Point, Scalar
from dartjax.robot._errors import BadParameter, Status, StatusCode, first_status

_REST = 1e-4  # of max_speed: without a force, a slower robot is at rest
_TWO_POLES = np.sqrt(np.sqrt(2.0) - 1.0)  # cutoff over pole frequency of two equal poles


class Admittance(eqx.Module):
    """Parameters of the admittance law M v' + D v = F beyond a force threshold."""

    inertia: float = 2.0  # kg
    max_speed: float = 150.0  # mm/s
    threshold: float = 0.8  # N, above the largest error of the tool-weight compensation
    cutoff: float = 20.0  # Hz, of the low-pass of the force
    step: float = 0.001  # s
    lag: float = 0.03  # s, of the robot's velocity loop
    per_si: float = eqx.field(default=1000.0, static=True)  # mm per m

    @property
    def filter_rate(self) -> Scalar | float:
        """Rate of each of the two equal poles of the low-pass, 1/s."""
        return 2.0 * np.pi * self.cutoff / _TWO_POLES

    @property
    def loop_lag(self) -> Scalar | float:
        """Lag of the velocity loop and the low-pass of the force together, s."""
        return self.lag + 2.0 / self.filter_rate

    def __check_init__(self) -> None:
        for name in ("inertia", "max_speed", "cutoff", "step", "lag"):
            value = getattr(self, name)
            if isinstance(value, float | int) and not 0.0 < value < np.inf:
                raise BadParameter(f"admittance {name} = {value}: give a number above 0")
        if isinstance(self.threshold, float | int) and not 0.0 <= self.threshold < np.inf:
            raise BadParameter(f"admittance threshold = {self.threshold}: give 0 or more")


def orientation_admittance() -> Admittance:
    """Return the law for rotating the tool: kg m^2, rad/s, N m. Its damping law is
    `orientation_rules`."""
    return Admittance(inertia=0.02, max_speed=0.5, threshold=0.05, per_si=1.0)


class ForceFilter(eqx.Module):
    """State of the second-order low-pass (two equal poles) of a force or torque."""

    first: Point
    second: Point
    status: Status = eqx.field(default_factory=lambda: jnp.int32(StatusCode.OK))  # last sample


def filter_step(state: ForceFilter, force: Point, law: Admittance) -> ForceFilter:
    """Advance the low-pass by one step; `second` is the filtered force.

    A sample that is not finite counts as no force, so that the robot slows down while such samples
    last; the status of the new state is then BAD_WRENCH.
    """
    finite = jnp.all(jnp.isfinite(force))
    force = jnp.where(finite, force, 0.0)
    share = 1.0 - jnp.exp(-law.filter_rate * law.step)
    first = state.first + share * (force - state.first)
    status = first_status((StatusCode.BAD_WRENCH, ~finite))
    return ForceFilter(first, state.second + share * (first - state.second), status)


def dead_band(force: Point, threshold: Scalar | float) -> Point:
    """Apply a dead band, force * max(0, 1 - threshold / |force|): 0 below the threshold."""
    size = safe_norm(force)
    beyond = jnp.maximum(size - threshold, 0.0)
    return force * (beyond / jnp.where(size > 0.0, size, 1.0))


def admittance_step(
    velocity: Point, force: Point, damping: Scalar, law: Admittance
) -> tuple[Point, Status]:
    """Compute the next velocity (mm/s or rad/s) under a force beyond the threshold (N or N m).

    v+ = (M v + dt F) / (M + dt D), which is stable for every step size. The speed is limited to
    `max_speed` without a change of direction. Without a force, a speed below 0.01 % of `max_speed`
    becomes 0. A force that is not finite stops the robot, with status BAD_WRENCH; so does, with
    status BAD_PARAMETER, a velocity or damping that is not finite, or a damping below 0.
    """
    is_wrench = jnp.all(jnp.isfinite(force))
    is_valid = jnp.all(jnp.isfinite(velocity)) & jnp.isfinite(damping) & (damping >= 0.0)
    finite = is_wrench & is_valid
    push = law.per_si * law.step * jnp.where(finite, force, 0.0)
    next_velocity = (law.inertia * velocity + push) / (law.inertia + law.step * damping)
    next_velocity = limit_length(next_velocity, law.max_speed)
    at_rest = ~jnp.any(force != 0.0) & (safe_norm(next_velocity) < _REST * law.max_speed)
    next_velocity = jnp.where(finite & ~at_rest, next_velocity, 0.0)
    status = first_status(
        (StatusCode.BAD_WRENCH, ~is_wrench), (StatusCode.BAD_PARAMETER, ~is_valid)
    )
    return next_velocity, status


def hand_velocity(
    velocity_base: Point, velocity_joint: Point, turns: Bool[Array, ""]
) -> Float[Array, "6"]:
    """Select the twist (mm/s in base axes, rad/s in joint-5 axes) by the button: translation if
    `turns` is false, rotation if it is true. The rotation about the tool's own axis is 0."""
    rotation = velocity_joint.at[2].set(0.0)
    zero = jnp.zeros(3, velocity_base.dtype)
    return jnp.concatenate(
        [jnp.where(turns, zero, velocity_base), jnp.where(turns, rotation, zero)]
    )


def limit_length(vector: Point, most: Scalar | float) -> Point:
    """Limit the length of a vector to `most`."""
    size = safe_norm(vector)
    return vector * jnp.minimum(1.0, most / jnp.where(size > 0.0, size, 1.0))


def limit_rates(rates: Float[Array, " joint"], most: Float[Array, " joint"]) -> Array:
    """Scale all joint rates by one factor so that none exceeds its limit; all 0 if one is not
    finite, or a limit is not above 0."""
    is_valid = jnp.all(jnp.isfinite(rates)) & jnp.all(most > 0.0)
    rates, most = jnp.where(is_valid, rates, 0.0), jnp.where(is_valid, most, 1.0)
    return rates / jnp.maximum(1.0, jnp.max(jnp.abs(rates) / most))


def stay_inside(
    velocity: Point, position: Point, lower: Point, upper: Point, brake_time: Scalar | float = 0.2
) -> Point:
    """Limit a velocity so that the tool stays inside the box [lower, upper].

    Toward a wall the speed is at most the remaining distance over `brake_time` (s). Outside the box
    only motion back into it is allowed. 0 if position or velocity are not finite.
    """
    finite = jnp.all(jnp.isfinite(position)) & jnp.all(jnp.isfinite(velocity))
    velocity, position = (jnp.where(finite, each, 0.0) for each in (velocity, position))
    most = jnp.maximum(upper - position, 0.0) / brake_time
    least = -jnp.maximum(position - lower, 0.0) / brake_time
    return jnp.clip(velocity, least, most)
