"""Motions a hand may want to make with the robot: reach, trace a curve, stop at once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax.robot import cooperation
from dartjax.robot.cooperation import Admittance, DampingLaw, Drag, Intention

HAND_MOTION_KINDS = ("reach", "trace", "stop")
FIXED_HIGH_DAMPING, FIXED_LOW_DAMPING = 62.6, 10.4  # N s/m, what variable damping is held against
_NUM_STEPS = 5000  # ms of every motion
_SWINGING_MM = 5.0  # peak to peak in the last half second: the robot has not come to rest
_START_S = 0.2
_TREMOR_N = 0.6  # rms over the three axes together
_NOISE_N, _BIAS_N = 0.1, 0.15  # per axis


class HandMotions(NamedTuple):
    """Intended motions of a hand: stacked intentions, and where and when each is meant to end."""

    intention: Intention  # leading axis: motion
    goal: jax.Array  # (motion, 3) mm
    direction: jax.Array  # (motion, 3), of the last part of the way
    stop: jax.Array  # (motion,) s


def random_hand_motions(rng: np.random.Generator, per_kind: int) -> HandMotions:
    """Draw `per_kind` motions of each of HAND_MOTION_KINDS, one kind after the other: random
    lengths (40-140 mm), directions and speeds (peak 40-130 mm/s), tremor of 7 to 11 Hz, sensor
    noise and a bias from the tool's weight."""
    made = [_motion(rng, kind) for kind in HAND_MOTION_KINDS for _ in range(per_kind)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
    return HandMotions(*stacked)


class DampingControllers(NamedTuple):
    """Damping laws side by side; leading axis: controller."""

    law: DampingLaw
    knows_arm: jax.Array  # whether its lowest damping is from the true stiffness of the arm


def damping_controllers(laws: Sequence[tuple[DampingLaw, bool]]) -> DampingControllers:
    """Stack damping laws, each with whether it knows the arm's true stiffness."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[law for law, _ in laws])
    return DampingControllers(stacked, jnp.array([knows for _, knows in laws]))


@jax.jit
def simulate_drags(
    controllers: DampingControllers, stiffness: Float[Array, " arm"], motions: HandMotions
) -> tuple[dict[str, Array], Drag]:
    """Drag the robot with every controller and arm (N/m) along every motion: the measures of
    `stop_quality` and `work_J`, each (controller, arm, motion), and the traces with these axes in
    front."""

    def one(law: DampingLaw, knows: Array, arm: Array, *motion: Any) -> tuple[dict, Drag]:
        intention, _, direction, stop = motion
        admittance = Admittance()
        low, _ = cooperation.damping_bounds(arm, law, admittance)
        law = eqx.tree_at(lambda own: own.least, law, jnp.where(knows, low, law.least))
        drag = cooperation.simulate_drag(intention, arm, law, admittance)
        quality = cooperation.stop_quality(drag, intention, direction, stop)
        return quality | {"work_J": drag.work[-1]}, drag

    over_motions = jax.vmap(one, (None, None, None, 0, 0, 0, 0))
    over_arms = jax.vmap(over_motions, (None, None, 0, None, None, None, None))
    over_laws = jax.vmap(over_arms, (0, 0, None, None, None, None, None))
    return over_laws(controllers.law, controllers.knows_arm, stiffness, *motions)


def came_to_rest(swing_mm: Float[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    """Whether the robot stood still at the end of a drag, from the measure `swing_mm`."""
    return np.isfinite(swing_mm) & (swing_mm < _SWINGING_MM)


def motion_below_threshold(damping: float = FIXED_LOW_DAMPING) -> float:
    """Farthest a robot at rest goes in a second under a force just below the threshold, mm."""
    law = Admittance()
    push = 0.999 * law.threshold * jnp.array([0.6, -0.64, 0.48])

    def step(state: tuple, _: None) -> tuple[tuple, None]:
        filtered, velocity, position = state
        filtered = cooperation.filter_step(filtered, push, law)
        force = cooperation.dead_band(filtered.second, law.threshold)
        velocity = cooperation.admittance_step(velocity, force, jnp.asarray(damping), law)[0]
        return (filtered, velocity, position + law.step * velocity), None

    zero = jnp.zeros(3)
    start = (cooperation.ForceFilter(zero, zero), zero, zero)
    (_, _, position), _ = jax.lax.scan(step, start, length=1000)
    return float(jnp.linalg.norm(position))


def _motion(rng: np.random.Generator, kind: str) -> HandMotions:
    length, peak = rng.uniform(40.0, 140.0), rng.uniform(40.0, 130.0)
    share, duration = _course(kind, length, peak)
    position = _curve(rng, kind, length, share)
    velocity = np.gradient(position, 0.001, axis=0)
    end = round((_START_S + duration) * 1000)
    last = position[end - 30] - position[end - 60]
    tremor, noise = _tremor(rng), rng.normal(0.0, _NOISE_N, position.shape)
    parts = (position, velocity, tremor, noise + rng.normal(0.0, _BIAS_N, 3))
    ends = (position[-1], last / np.linalg.norm(last), _START_S + duration)
    return HandMotions(Intention(*map(_single, parts)), *map(_single, ends))


def _single(values: np.ndarray | float) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


def _course(kind: str, length: float, peak: float) -> tuple[np.ndarray, float]:
    """Share of the way at every millisecond, and how long the motion takes. Minimum jerk; a
    stop is one whose second half takes half the time."""
    duration = np.clip(1.875 * length / peak, 0.8, 2.6)
    time = np.arange(_NUM_STEPS) * 0.001 - _START_S
    if kind != "stop":
        return _minimum_jerk(time / duration), float(duration)
    rising, falling = duration / 1.5, duration / 3.0
    u = np.where(time < rising, time / rising / 2.0, 0.5 + (time - rising) / falling / 2.0)
    u = np.clip(u, 0.0, 1.0)
    way = np.cumsum(30.0 * u**2 * (1.0 - u) ** 2)  # the same bell of speeds
    return way / way[-1], float(rising + falling)


def _minimum_jerk(u: np.ndarray) -> np.ndarray:
    u = np.clip(u, 0.0, 1.0)
    return u**3 * (10.0 - 15.0 * u + 6.0 * u**2)


def _curve(rng: np.random.Generator, kind: str, length: float, share: np.ndarray) -> np.ndarray:
    """A line, or for a trace an S of two arcs, in a random plane, mm."""
    frame, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    along, across = length * share, np.zeros_like(share)
    if kind == "trace":
        across = rng.uniform(0.1, 0.25) * length * np.sin(2.0 * np.pi * share)
    return along[:, None] * frame[0] + across[:, None] * frame[1]


def _tremor(rng: np.random.Generator) -> np.ndarray:
    """Three sines of 7 to 11 Hz per axis, N."""
    time = np.arange(_NUM_STEPS)[:, None, None] * 0.001
    frequency, phase = rng.uniform(7.0, 11.0, (3, 3)), rng.uniform(0.0, 2.0 * np.pi, (3, 3))
    waves = np.sin(2.0 * np.pi * frequency * time + phase).sum(axis=1)
    return _TREMOR_N / np.sqrt(3.0) * waves / np.sqrt(1.5)
