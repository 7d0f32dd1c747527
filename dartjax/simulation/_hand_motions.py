"""Intended hand motions with the robot: reach, trace a curve, stop suddenly."""

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
FIXED_HIGH_DAMPING, FIXED_LOW_DAMPING = 62.6, 10.4  # N s/m, baselines of variable damping
_NUM_STEPS = 5000  # duration of every motion, ms
_SWINGING_MM = 5.0  # peak to peak in the last half second; above it the robot has not come to rest
_START_S = 0.2
_TREMOR_N = 0.6  # rms over the three axes together
_NOISE_N, _BIAS_N = 0.1, 0.15  # per axis


class HandMotions(NamedTuple):
    """Intended motions of a hand (stacked), with place and time of each intended stop."""

    intention: Intention  # leading axis: motion
    goal: jax.Array  # (motion, 3) mm
    direction: jax.Array  # (motion, 3), of the last part of the motion
    stop: jax.Array  # (motion,) s


def random_hand_motions(rng: np.random.Generator, per_kind: int) -> HandMotions:
    """Draw `per_kind` motions of each of HAND_MOTION_KINDS, one kind after the other: random
    lengths (40-140 mm), directions and speeds (peak 40-130 mm/s), tremor of 7 to 11 Hz, sensor
    noise and a bias from the tool's weight."""
    made = [_motion(rng, kind) for kind in HAND_MOTION_KINDS for _ in range(per_kind)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
    return HandMotions(*stacked)


class DampingControllers(NamedTuple):
    """Stacked damping laws; leading axis: controller."""

    law: DampingLaw
    knows_arm: jax.Array  # whether the true stiffness of the arm gives the lowest damping


def damping_controllers(laws: Sequence[tuple[DampingLaw, bool]]) -> DampingControllers:
    """Stack damping laws, each with a flag for known stiffness of the arm."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[law for law, _ in laws])
    return DampingControllers(stacked, jnp.array([knows for _, knows in laws]))


@jax.jit
def simulate_drags(
    controllers: DampingControllers, stiffness: Float[Array, " arm"], motions: HandMotions
) -> tuple[dict[str, Array], Drag]:
    """Simulate drags with every controller and arm (stiffness in N/m) along every motion.

    Returns the measures of `stop_quality` and `work_J`, each (controller, arm, motion), and the
    traces with these leading axes.
    """

    def one(law: DampingLaw, knows: Array, arm: Array, *motion: Any) -> tuple[dict, Drag]:
        intention, _, direction, stop = motion
        admittance = Admittance()
        low, _ = cooperation.damping_bounds(arm, law, admittance)
        law = eqx.tree_at(lambda tree: tree.least, law, jnp.where(knows, low, law.least))
        drag = cooperation.simulate_drag(intention, arm, law, admittance)
        quality = cooperation.stop_quality(drag, intention, direction, stop)
        return quality | {"work_J": drag.work[-1]}, drag

    over_motions = jax.vmap(one, (None, None, None, 0, 0, 0, 0))
    over_arms = jax.vmap(over_motions, (None, None, 0, None, None, None, None))
    over_laws = jax.vmap(over_arms, (0, 0, None, None, None, None, None))
    return over_laws(controllers.law, controllers.knows_arm, stiffness, *motions)


def came_to_rest(swing_mm: Float[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    """Return whether the robot was at rest at the end of a drag, from the measure `swing_mm`."""
    return np.isfinite(swing_mm) & (swing_mm < _SWINGING_MM)


def motion_below_threshold(damping: float = FIXED_LOW_DAMPING) -> float:
    """Compute the motion (mm) of a robot at rest in one second under a force just below the
    threshold."""
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
    """Fraction of the path at every millisecond, and the duration of the motion. Minimum jerk; the
    second half of a "stop" takes half the time."""
    duration = np.clip(1.875 * length / peak, 0.8, 2.6)
    time = np.arange(_NUM_STEPS) * 0.001 - _START_S
    if kind != "stop":
        return _minimum_jerk(time / duration), float(duration)
    rising, falling = duration / 1.5, duration / 3.0
    u = np.where(time < rising, time / rising / 2.0, 0.5 + (time - rising) / falling / 2.0)
    u = np.clip(u, 0.0, 1.0)
    path = np.cumsum(30.0 * u**2 * (1.0 - u) ** 2)  # the same bell-shaped speed
    return path / path[-1], float(rising + falling)


def _minimum_jerk(u: np.ndarray) -> np.ndarray:
    u = np.clip(u, 0.0, 1.0)
    return u**3 * (10.0 - 15.0 * u + 6.0 * u**2)


def _curve(rng: np.random.Generator, kind: str, length: float, share: np.ndarray) -> np.ndarray:
    """Path in a random plane, mm: a line, or an S-shaped curve for a trace."""
    frame, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    along, across = length * share, np.zeros_like(share)
    if kind == "trace":
        across = rng.uniform(0.1, 0.25) * length * np.sin(2.0 * np.pi * share)
    return along[:, None] * frame[0] + across[:, None] * frame[1]


def _tremor(rng: np.random.Generator) -> np.ndarray:
    """Tremor force: three sines of 7 to 11 Hz per axis, N."""
    time = np.arange(_NUM_STEPS)[:, None, None] * 0.001
    frequency, phase = rng.uniform(7.0, 11.0, (3, 3)), rng.uniform(0.0, 2.0 * np.pi, (3, 3))
    waves = np.sin(2.0 * np.pi * frequency * time + phase).sum(axis=1)
    return _TREMOR_N / np.sqrt(3.0) * waves / np.sqrt(1.5)
