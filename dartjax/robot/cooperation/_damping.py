"""The damping a hand feels: never so low that a stiff arm makes the robot swing, low while the
hand pulls, high when it wants to stop."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from dartjax._numerics import safe_norm
from dartjax._types import Point, Scalar
from dartjax.robot.cooperation._admittance import Admittance
from dartjax.robot.cooperation._arm_stiffness import lowest_stable_damping
from dartjax.robot.cooperation._fuzzy import SugenoRules

_FULL_FORCE = 15.0  # N
# The classical rules: rows speed, columns force, small to big.
_CLASSICAL = np.array([[1.0, 0.85, 0.6], [0.85, 0.5, 0.25], [0.6, 0.25, 0.0]])
_ALWAYS_LOW = np.zeros((3, 3))
# Found by experiments.admittance_tuning: rows speed, columns intent, small to big.
_TUNED = np.array([[0.885, 0.912, 0.077], [0.856, 0.546, 0.269], [0.85, 0.107, 0.223]])
_TUNED_SPEEDS = np.array([0.0, 0.14, 0.61])
_TUNED_INTENTS = np.array([0.0, 0.4707, 0.9414])
_TUNED_MOST, _TUNED_RATE, _TUNED_SMALL_FORCE = 121.549, 1462.445, 1.437


class DampingLaw(eqx.Module):
    """D = low + (high - low) rho, with low from the arm's stiffness and rho from rules.

    low = max(least, margin * lowest stable damping); high = max(low, min(most, arm_ratio *
    sqrt(M K))). The rows of the rules are the speed over its limit; the columns are
    (1 - intent) |F| / 15 N + intent * `intent`, that is the size of the force, or what the hand
    means by it.
    """

    least: Scalar  # N s/m
    most: Scalar
    margin: Scalar  # on the lowest stable damping
    arm_ratio: Scalar  # 1.4 is a damping ratio of 0.7 on the spring of the arm
    rate: Scalar  # N s/m per s, of any change
    by_intent: Scalar  # 1: columns are the intent; 0: the size of the force
    small_force: Scalar  # N, what a hand pulls with at rest before it means to move
    rules: SugenoRules


def fixed_damping(damping: float) -> DampingLaw:
    """The same damping always, N s/m."""
    return _law(_ALWAYS_LOW, least=damping, most=damping, margin=0.0)


def lowest_damping() -> DampingLaw:
    """Always the lowest stable damping: rho = 0."""
    return _law(_ALWAYS_LOW)


def classical_rules() -> DampingLaw:
    """Fuzzy rules over the sizes of force and speed: high while both are small."""
    return _law(_CLASSICAL)


def intent_rules() -> DampingLaw:
    """Fuzzy rules over speed and intent, tuned on simulated hands: low while the hand pulls, high
    when it lets go, brakes, or holds still."""
    return tuned_law(
        _TUNED,
        most=_TUNED_MOST,
        rate=_TUNED_RATE,
        small_force=_TUNED_SMALL_FORCE,
        speeds=_TUNED_SPEEDS,
        columns=_TUNED_INTENTS,
    )


def tuned_law(
    table: ArrayLike,
    *,
    most: ArrayLike,
    rate: ArrayLike,
    small_force: ArrayLike,
    speeds: ArrayLike,
    columns: ArrayLike,
    by_intent: ArrayLike = 1.0,
) -> DampingLaw:
    """Rules of one's own (3 x 3), with a high damping `most` that does not depend on the arm.
    `speeds` and `columns` are the three apexes of the sets, from 0 up."""
    law = _law(table, most=most, rate=rate, arm_ratio=1e3, by_intent=by_intent)
    rules = SugenoRules(law.rules.table, _number(speeds), _number(columns))
    parts = (_number(small_force), rules)
    return eqx.tree_at(lambda own: (own.small_force, own.rules), law, parts)


def _law(
    table: ArrayLike,
    *,
    least: float = 8.0,
    most: ArrayLike = 80.0,
    margin: float = 1.2,
    arm_ratio: float = 1.4,
    rate: ArrayLike = 400.0,
    by_intent: ArrayLike = 0.0,
) -> DampingLaw:
    apexes = jnp.array([0.0, 0.5, 1.0])
    return DampingLaw(
        least=_number(least),
        most=_number(most),
        margin=_number(margin),
        arm_ratio=_number(arm_ratio),
        rate=_number(rate),
        by_intent=_number(by_intent),
        small_force=_number(1.0),
        rules=SugenoRules(_number(table), apexes, apexes),
    )


def _number(values: ArrayLike) -> Array:
    return jnp.asarray(values, jnp.float32)


def intent(
    force: Point, velocity: Point, low: Scalar, small_force: Scalar, law: Admittance
) -> Scalar:
    """What the hand means: its force along the motion over the force that would hold this speed
    at the lowest damping, F . v / |v| / (low |v| + small_force).

    1 and more: go on or faster; 0: let go; below 0: brake. At rest the whole force counts.
    """
    speed = safe_norm(velocity)
    moving = speed / (speed + 0.01 * law.max_speed)
    along = jnp.sum(force * velocity) / jnp.where(speed > 0.0, speed, 1.0)
    pull = moving * along + (1.0 - moving) * safe_norm(force)
    return pull / (low * speed / law.per_si + small_force)


def damping_bounds(
    stiffness: Scalar, damping: DampingLaw, law: Admittance
) -> tuple[Scalar, Scalar]:
    """The lowest and the highest damping for an arm of `stiffness`, N s/m."""
    stable = lowest_stable_damping(stiffness, law.inertia, law.loop_lag)
    low = jnp.maximum(damping.least, damping.margin * stable)
    on_arm = damping.arm_ratio * jnp.sqrt(law.inertia * stiffness)
    return low, jnp.maximum(low, jnp.minimum(damping.most, on_arm))


def damping_step(
    previous: Scalar,
    force: Point,
    velocity: Point,
    stiffness: Scalar,
    damping: DampingLaw,
    law: Admittance,
) -> Scalar:
    """The next damping, N s/m, from the force beyond the threshold (N), the velocity (mm/s) and
    the arm's stiffness (N/m); it changes by at most `rate` a second, but never stays below the
    lowest stable one."""
    low, high = damping_bounds(stiffness, damping, law)
    meant = intent(force, velocity, low, damping.small_force, law)
    size = safe_norm(force) / _FULL_FORCE
    column = damping.by_intent * meant + (1.0 - damping.by_intent) * size
    rho = damping.rules(safe_norm(velocity) / law.max_speed, column)
    wanted = low + (high - low) * jnp.clip(rho, 0.0, 1.0)
    change = damping.rate * law.step
    return jnp.maximum(low, jnp.clip(wanted, previous - change, previous + change))
