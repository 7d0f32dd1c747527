"""Time parametrisation of a path in joint space within rate and acceleration limits.

The path parameter u goes from 0 to 1 as the quintic 10 s^3 - 15 s^4 + 6 s^5 of s = t / T, at rest
at both ends. T is the shortest duration for which every joint is within its limits at every sample.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._types import Scalar

JointPath = Callable[[Scalar], Float[Array, " joint"]]  # of u in [0, 1]
_SHORTEST_S = 1e-3


class MotionLimits(eqx.Module):
    """Largest rate and acceleration of every joint, in mm or rad per s and per s^2."""

    rate: Float[Array, " joint"]
    acceleration: Float[Array, " joint"]


class Trajectory(eqx.Module):
    """Joint trajectory at sample times from 0 to `duration`, s."""

    times: Float[Array, " sample"]
    positions: Float[Array, "sample joint"]
    rates: Float[Array, "sample joint"]
    accelerations: Float[Array, "sample joint"]
    duration: Scalar


def spine_motion_limits() -> MotionLimits:
    """Return the limits of (l11, l14, l3, th4, th5, feed) of the hybrid robot.

    Sliders 50 mm/s, rotations 0.3 rad/s, feed 5 mm/s, each reached in half a second.
    """
    rate = jnp.array([50.0, 50.0, 50.0, 0.3, 0.3, 5.0])
    return MotionLimits(rate, 2.0 * rate)


def timed(path: JointPath, limits: MotionLimits, *, num_samples: int = 101) -> Trajectory:
    """Time a path with the shortest duration of the quintic within the limits.

    The joint positions do not leave the path, so a straight path between positions within range
    stays within range. A path without motion takes a millisecond. The duration is NaN if a position
    or rate is not finite, or a limit is not above 0.
    """
    s = jnp.linspace(0.0, 1.0, num_samples)
    u = s**3 * (10.0 + s * (6.0 * s - 15.0))
    du = 30.0 * (s * (1.0 - s)) ** 2
    ddu = 60.0 * s * (1.0 - s) * (1.0 - 2.0 * s)
    slope = jax.jacfwd(path)
    positions, slopes = jax.vmap(path)(u), jax.vmap(slope)(u)
    bends = jax.vmap(jax.jacfwd(slope))(u)
    rates = slopes * du[:, None]
    accelerations = bends * (du**2)[:, None] + slopes * ddu[:, None]
    by_rate = jnp.max(jnp.abs(rates) / limits.rate[None])
    by_acceleration = jnp.max(jnp.abs(accelerations) / limits.acceleration[None])
    duration = jnp.maximum(by_rate, jnp.sqrt(jnp.maximum(by_acceleration, _SHORTEST_S**2)))
    is_limited = jnp.all(limits.rate > 0.0) & jnp.all(limits.acceleration > 0.0)
    is_finite = jnp.all(jnp.isfinite(rates)) & jnp.all(jnp.isfinite(accelerations))
    duration = jnp.where(is_limited & is_finite, duration, jnp.nan)
    return Trajectory(
        s * duration, positions, rates / duration, accelerations / duration**2, duration
    )


def straight(start: Float[Array, " joint"], end: Float[Array, " joint"]) -> JointPath:
    """Build the straight path between two joint positions."""
    return lambda u: start + u * (end - start)


def joined(*parts: Trajectory) -> Trajectory:
    """Join trajectories in sequence; each must begin where the previous one ended."""
    durations = jnp.stack([part.duration for part in parts])
    ends = jnp.cumsum(durations)
    return Trajectory(
        jnp.concatenate([p.times + t for p, t in zip(parts, ends - durations, strict=True)]),
        jnp.concatenate([p.positions for p in parts]),
        jnp.concatenate([p.rates for p in parts]),
        jnp.concatenate([p.accelerations for p in parts]),
        ends[-1],
    )
