"""A hand moves the robot: from the hand's force to a velocity.

Position is dragged in base axes, orientation in the axes of joint 5; a button chooses, never
both at once. The same law serves both: `Admittance.per_si` is 1000 for positions in mm and 1 for
angles in rad, everything else is SI.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._numerics import safe_norm
from dartjax._types import Point, Scalar
from dartjax.robot._errors import BadParameter, Status, StatusCode, first_status

_REST = 1e-4  # of v_max: slower than this without a force is standing still
_TWO_POLES = np.sqrt(np.sqrt(2.0) - 1.0)  # two equal poles pass half the power at this share


class Admittance(eqx.Module):
    """The robot as a hand feels it: M v' + D v = F beyond a threshold."""

    inertia: float = 2.0  # kg
    max_speed: float = 150.0  # mm/s
    threshold: float = 0.8  # N, above the largest error of the tool's compensated weight
    cutoff: float = 20.0  # Hz, of the force's low-pass
    step: float = 0.001  # s
    lag: float = 0.03  # s, of the velocity loop below
    per_si: float = eqx.field(default=1000.0, static=True)  # mm per m

    @property
    def filter_rate(self) -> Scalar | float:
        """Rate of each of the two equal poles of the low-pass, 1/s."""
        return 2.0 * np.pi * self.cutoff / _TWO_POLES

    @property
    def loop_lag(self) -> Scalar | float:
        """Lag of the whole loop, s: of the velocity loop and of the force's low-pass."""
        return self.lag + 2.0 / self.filter_rate

    def __check_init__(self) -> None:
        for name in ("inertia", "max_speed", "cutoff", "step", "lag"):
            value = getattr(self, name)
            if isinstance(value, float | int) and not 0.0 < value < np.inf:
                raise BadParameter(f"admittance {name} = {value}: give a number above 0")
        if isinstance(self.threshold, float | int) and not 0.0 <= self.threshold < np.inf:
            raise BadParameter(f"admittance threshold = {self.threshold}: give 0 or more")


def orientation_admittance() -> Admittance:
    """The law for turning the tool: kg m^2, rad/s, N m."""
    return Admittance(inertia=0.02, max_speed=0.5, threshold=0.05, per_si=1.0)


class ForceFilter(eqx.Module):
    """State of the second-order low-pass (two equal poles) of a force or torque."""

    first: Point
    second: Point


def filter_step(state: ForceFilter, force: Point, law: Admittance) -> ForceFilter:
    """One step of the low-pass; `second` is the filtered force."""
    share = 1.0 - jnp.exp(-law.filter_rate * law.step)
    first = state.first + share * (force - state.first)
    return ForceFilter(first, state.second + share * (first - state.second))


def dead_band(force: Point, threshold: Scalar | float) -> Point:
    """force * max(0, 1 - threshold / |force|): exactly 0 below the threshold, continuous."""
    size = safe_norm(force)
    beyond = jnp.maximum(size - threshold, 0.0)
    return force * (beyond / jnp.where(size > 0.0, size, 1.0))


def admittance_step(
    velocity: Point, force: Point, damping: Scalar, law: Admittance
) -> tuple[Point, Status]:
    """The next velocity (mm/s, or rad/s) under a force beyond the threshold (N, or N m).

    v+ = (M v + dt F) / (M + dt D), which is stable for every step; the speed is limited to
    v_max with its direction kept; without a force the last 0.01 % of v_max is rest, exactly 0.
    A force that is not finite holds the robot (velocity 0) with status BAD_WRENCH.
    """
    finite = jnp.all(jnp.isfinite(force))
    push = law.per_si * law.step * jnp.where(finite, force, 0.0)
    following = (law.inertia * velocity + push) / (law.inertia + law.step * damping)
    following = limit_length(following, law.max_speed)
    at_rest = ~jnp.any(force != 0.0) & (safe_norm(following) < _REST * law.max_speed)
    following = jnp.where(finite & ~at_rest, following, 0.0)
    return following, first_status((StatusCode.BAD_WRENCH, ~finite))


def hand_velocity(
    velocity_base: Point, velocity_joint: Point, turns: Bool[Array, ""]
) -> Float[Array, "6"]:
    """Twist (mm/s in base axes, rad/s in joint-5 axes) under the button: moving or turning,
    never both. The torque about the tool's own axis is not used: that rate is 0."""
    turning = velocity_joint.at[2].set(0.0)
    nothing = jnp.zeros(3, velocity_base.dtype)
    return jnp.concatenate(
        [jnp.where(turns, nothing, velocity_base), jnp.where(turns, turning, nothing)]
    )


def limit_length(vector: Point, most: Scalar | float) -> Point:
    """The vector, shortened to `most` where it is longer."""
    size = safe_norm(vector)
    return vector * jnp.minimum(1.0, most / jnp.where(size > 0.0, size, 1.0))


def limit_rates(rates: Float[Array, " joint"], most: Float[Array, " joint"]) -> Array:
    """Joint rates, all scaled alike so that none passes its limit: the direction is kept."""
    return rates / jnp.maximum(1.0, jnp.max(jnp.abs(rates) / most))


def stay_inside(
    velocity: Point, position: Point, lower: Point, upper: Point, brake_time: Scalar | float = 0.2
) -> Point:
    """Velocity with which the tool does not leave the box [lower, upper]: toward a wall no
    faster than the way left over `brake_time` (s); outside, only back."""
    most = jnp.maximum(upper - position, 0.0) / brake_time
    least = -jnp.maximum(position - lower, 0.0) / brake_time
    return jnp.clip(velocity, least, most)
