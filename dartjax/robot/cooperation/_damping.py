"""Variable damping of the admittance: low while the hand pulls, high when it brakes or lets go.

A lower bound that depends on the stiffness of the operator's arm keeps the robot stable.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from dartjax._numerics import safe_norm
from dartjax._types import Point, Scalar
from dartjax.robot._errors import BadParameter
from dartjax.robot.cooperation._admittance import Admittance, orientation_admittance
from dartjax.robot.cooperation._arm_stiffness import lowest_stable_damping
from dartjax.robot.cooperation._fuzzy import SugenoRules

_FULL_FORCE = 15.0  # N, force at which the rules' force input is 1
_PER_M = 1000.0  # `Admittance.per_si` of a law for positions in mm
# The classical rules: rows are the speed, columns the force, in ascending order.
_CLASSICAL = np.array([[1.0, 0.85, 0.6], [0.85, 0.5, 0.25], [0.6, 0.25, 0.0]])
_ALWAYS_LOW = np.zeros((3, 3))
_MOTION = ("rotation", "translation")
# Found by experiments.admittance_tuning: rows are the speed, columns the intent, ascending.
_TUNED = np.array([[0.885, 0.912, 0.077], [0.856, 0.546, 0.269], [0.85, 0.107, 0.223]])
_TUNED_SPEEDS = np.array([0.0, 0.14, 0.61])
_TUNED_INTENTS = np.array([0.0, 0.4707, 0.9414])
_TUNED_MOST, _TUNED_RATE, _TUNED_SMALL_FORCE = 121.549, 1462.445, 1.437


class DampingLaw(eqx.Module):
    """Damping law D = low + (high - low) rho, with rho in [0, 1] from fuzzy rules.

    low = max(least, margin * lowest stable damping); high = max(low, min(most, arm_ratio *
    sqrt(M K))), with the arm's stiffness K. The first input of the rules is the speed over its
    limit. The second is (1 - by_intent) |F| / full_force + by_intent * `intent`: the magnitude of
    the force, or the intent of the hand.

    A law belongs to an `Admittance` of the same `per_si`: 1000 for translation (N, m), 1 for
    rotation (N m, rad; every N below is N m, every m is rad). See `orientation_rules`.
    """

    least: Scalar  # N s/m
    most: Scalar  # N s/m
    margin: Scalar  # factor on the lowest stable damping
    arm_ratio: Scalar  # 1.4 is a damping ratio of 0.7 on the spring of the arm
    rate: Scalar  # N s/m per s, largest rate of change
    by_intent: Scalar  # 1: the rules use the intent; 0: the magnitude of the force
    small_force: Scalar  # N, force of a hand at rest that intends no motion
    rules: SugenoRules
    full_force: Scalar  # N, force at which the magnitude of the force is 1
    per_si: float = eqx.field(default=_PER_M, static=True)


def fixed_damping(damping: float) -> DampingLaw:
    """Return a law of constant damping, N s/m."""
    return _law(_ALWAYS_LOW, least=damping, most=damping, margin=0.0)


def lowest_damping() -> DampingLaw:
    """Return the law that always uses the lowest stable damping: rho = 0."""
    return _law(_ALWAYS_LOW)


def classical_rules() -> DampingLaw:
    """Return fuzzy rules over the magnitudes of force and speed: high while both are small."""
    return _law(_CLASSICAL)


def intent_rules() -> DampingLaw:
    """Return fuzzy rules over speed and intent, tuned on simulated hands.

    The damping is low while the hand pulls, high when it lets go, brakes or holds still.
    """
    return tuned_law(
        _TUNED,
        most=_TUNED_MOST,
        rate=_TUNED_RATE,
        small_force=_TUNED_SMALL_FORCE,
        speeds=_TUNED_SPEEDS,
        columns=_TUNED_INTENTS,
    )


def orientation_rules() -> DampingLaw:
    """Return `intent_rules` for rotating the tool: N m s/rad, for `orientation_admittance`.

    The tuned law is scaled so that the motion is similar in the sense of dynamics: damping by the
    ratio of the inertias (0.01 m^2), torques by it times the ratio of the largest speeds (0.033 m),
    and the same times. A hand that behaves alike has a stiffness of 0.01 K, that is, K at a lever
    of 100 mm. `damping_step` needs that stiffness, in N m/rad.
    """
    law, by_translation, by_rotation = intent_rules(), Admittance(), orientation_admittance()
    damping = by_rotation.inertia / by_translation.inertia
    speeds = by_rotation.max_speed / by_rotation.per_si
    speeds = speeds / (by_translation.max_speed / by_translation.per_si)

    def scaled(by: float, *names: str) -> dict[str, Array]:
        return {name: by * getattr(law, name) for name in names}

    return dataclasses.replace(
        law,
        **scaled(damping, "least", "most", "rate"),
        **scaled(damping * speeds, "small_force", "full_force"),
        per_si=by_rotation.per_si,
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
    """Build a law from a 3 x 3 rule table, with a high damping `most` independent of the arm.

    `speeds` and `columns` are the three apexes of the membership functions, ascending from 0.
    """
    law = _law(table, most=most, rate=rate, arm_ratio=1e3, by_intent=by_intent)
    rules = SugenoRules(law.rules.table, _number(speeds), _number(columns))
    replaced = (_number(small_force), rules)
    return eqx.tree_at(lambda tree: (tree.small_force, tree.rules), law, replaced)


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
        full_force=_number(_FULL_FORCE),
    )


def _number(values: ArrayLike) -> Array:
    return jnp.asarray(values, jnp.float32)


def intent(
    force: Point, velocity: Point, low: Scalar, small_force: Scalar, law: Admittance
) -> Scalar:
    """Compute the intent of the hand, F . v / |v| / (low |v| + small_force).

    This is its force along the motion, relative to the force that holds the speed at the lowest
    damping. 1 or more: keep moving or accelerate; 0: let go; negative: brake. At rest the
    magnitude of the force is used.
    """
    speed = safe_norm(velocity)
    moving = speed / (speed + 0.01 * law.max_speed)
    along = jnp.sum(force * velocity) / jnp.where(speed > 0.0, speed, 1.0)
    pull = moving * along + (1.0 - moving) * safe_norm(force)
    return pull / (low * speed / law.per_si + small_force)


def damping_bounds(
    stiffness: Scalar, damping: DampingLaw, law: Admittance
) -> tuple[Scalar, Scalar]:
    """Compute the lowest and the highest damping (N s/m) for an arm of `stiffness` (N/m).

    Raises BadParameter if one law is for translation and the other for rotation.
    """
    if damping.per_si != law.per_si:
        raise BadParameter(
            f"the damping law is for {_MOTION[damping.per_si == _PER_M]} and the admittance for "
            f"{_MOTION[law.per_si == _PER_M]}: use orientation_rules() with orientation_admittance"
        )
    stable = lowest_stable_damping(stiffness, law.inertia, law.loop_lag)
    low = jnp.maximum(damping.least, damping.margin * stable)
    arm_limit = damping.arm_ratio * jnp.sqrt(law.inertia * stiffness)
    return low, jnp.maximum(low, jnp.minimum(damping.most, arm_limit))


def damping_step(
    previous: Scalar,
    force: Point,
    velocity: Point,
    stiffness: Scalar,
    damping: DampingLaw,
    law: Admittance,
) -> Scalar:
    """Compute the next damping, N s/m.

    From the force beyond the threshold (N), the velocity (mm/s) and the arm's stiffness (N/m); for
    rotation N m, rad/s and N m/rad. Raises BadParameter for laws of different kinds. The damping
    changes by at most `rate` per second, but is never below the lowest stable damping. If an input
    is not finite the damping stays, and a previous damping that is not finite counts as `most`.
    """
    previous = jnp.where(jnp.isfinite(previous), previous, damping.most)
    low, high = damping_bounds(stiffness, damping, law)
    hand_intent = intent(force, velocity, low, damping.small_force, law)
    magnitude = safe_norm(force) / damping.full_force
    column = damping.by_intent * hand_intent + (1.0 - damping.by_intent) * magnitude
    rho = damping.rules(safe_norm(velocity) / law.max_speed, column)
    wanted = low + (high - low) * jnp.clip(rho, 0.0, 1.0)
    change = damping.rate * law.step
    following = jnp.maximum(low, jnp.clip(wanted, previous - change, previous + change))
    finite = jnp.all(jnp.isfinite(force)) & jnp.all(jnp.isfinite(velocity))
    return jnp.where(finite & jnp.isfinite(stiffness), following, previous)
