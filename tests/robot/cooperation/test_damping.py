"""Intent of a hand, and the damping that follows from it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import BadParameter, cooperation

LAW = cooperation.Admittance()
FORWARD = jnp.array([80.0, 0.0, 0.0])  # mm/s
LOW, SMALL = jnp.asarray(10.0), jnp.asarray(1.0)


def intent_of(force, velocity=FORWARD):
    return float(cooperation.intent(jnp.asarray(force), velocity, LOW, SMALL, LAW))


def test_intent_distinguishes_pulling_letting_go_and_braking():
    holds = 10.0 * 0.08 + 1.0  # N: low damping times the speed, and the small force
    assert intent_of([holds, 0.0, 0.0]) == pytest.approx(1.0, abs=0.03)
    assert intent_of([2.0 * holds, 0.0, 0.0]) > 1.9
    assert intent_of([0.0, 0.0, 0.0]) == 0.0
    assert intent_of([-2.0, 0.0, 0.0]) < -1.0
    assert abs(intent_of([0.0, 5.0, 0.0])) < 0.1  # across the motion


def test_at_rest_the_whole_force_counts():
    for force in ([3.0, 0.0, 0.0], [0.0, -3.0, 0.0]):
        assert intent_of(force, jnp.zeros(3)) == pytest.approx(3.0)


@jax.jit
def settled(law, force, velocity, stiffness, start):
    def step(damping, _):
        return cooperation.damping_step(damping, force, velocity, stiffness, law, LAW), None

    return jax.lax.scan(step, start, length=300)[0]


def settle(law, force, velocity=FORWARD, stiffness=500.0, start=60.0):
    numbers = (jnp.asarray(value, jnp.float32) for value in (force, velocity, stiffness, start))
    return float(settled(law, *numbers))


def test_tuned_rules_are_low_in_a_pull_and_high_in_a_stop():
    law = cooperation.intent_rules()
    pull, let_go = settle(law, [6.0, 0.0, 0.0]), settle(law, [0.0, 0.0, 0.0])
    brake, rest = settle(law, [-4.0, 0.0, 0.0]), settle(law, [0.0] * 3, jnp.zeros(3))
    assert pull < 50.0 and min(let_go, brake, rest) > 70.0


def test_classical_rules_are_lowest_where_force_and_speed_are_big():
    law = cooperation.classical_rules()
    low, _ = cooperation.damping_bounds(jnp.asarray(500.0), law, LAW)
    assert settle(law, [20.0, 0.0, 0.0], jnp.array([150.0, 0, 0])) == pytest.approx(float(low))


def test_damping_changes_no_faster_than_its_rate():
    law = cooperation.classical_rules()
    stiffness = jnp.asarray(500.0)
    after = cooperation.damping_step(
        jnp.asarray(60.0), 20.0 * FORWARD, FORWARD, stiffness, law, LAW
    )
    assert float(after) == pytest.approx(60.0 - 400.0 * 0.001, rel=1e-5)


@pytest.mark.parametrize("stiffness", [50.0, 400.0, 2000.0])
def test_no_rule_goes_below_the_stable_damping(stiffness):
    bound = cooperation.lowest_stable_damping(jnp.asarray(stiffness), LAW.inertia, LAW.loop_lag)
    for law in (
        cooperation.lowest_damping(),
        cooperation.classical_rules(),
        cooperation.intent_rules(),
    ):
        found = settle(law, [15.0, 0.0, 0.0], stiffness=stiffness, start=0.0)
        assert found >= max(1.2 * float(bound) * 0.999, 8.0)


def test_fixed_damping_is_fixed():
    law = cooperation.fixed_damping(62.6)
    for force in ([0.0] * 3, [20.0, 0.0, 0.0], [-20.0, 0.0, 0.0]):
        assert settle(law, force) == pytest.approx(62.6)


def test_rho_0_is_the_lowest_damping_for_an_arm():
    law, stiffness = cooperation.lowest_damping(), 1000.0
    expected = 1.2 * cooperation.lowest_stable_damping(jnp.asarray(stiffness), 2.0, LAW.loop_lag)
    np.testing.assert_allclose(settle(law, [0.0] * 3, stiffness=stiffness), expected, rtol=1e-5)


TURNS = cooperation.orientation_admittance()


def driven(law, damping, force, stiffness, seconds=4.0):
    """Velocity after a constant push for some seconds, and half a second after it ends."""

    @jax.jit
    def run(push):
        def step(state, push):
            velocity, resistance = state
            beyond = cooperation.dead_band(push, law.threshold)
            resistance = cooperation.damping_step(
                resistance, beyond, velocity, jnp.asarray(stiffness), damping, law
            )
            velocity, _ = cooperation.admittance_step(velocity, beyond, resistance, law)
            return (velocity, resistance), velocity

        return jax.lax.scan(step, (jnp.zeros(3), damping.most), push)[1]

    count = round(seconds / law.step)
    push = jnp.concatenate([jnp.tile(force[None], (count, 1)), jnp.zeros((500, 3))])
    velocity = np.asarray(run(push))[:, 0]
    return velocity[count - 1], velocity[-1]


def test_a_turn_is_fast_and_stops():
    """1 N m for 4 s reaches the largest speed, as a strong pull does."""
    fast, after = driven(TURNS, cooperation.orientation_rules(), jnp.array([1.0, 0, 0]), 3.0)
    assert fast > 0.95 * TURNS.max_speed
    assert abs(after) < 0.05 * TURNS.max_speed


@pytest.mark.parametrize("force", [2.0, 6.0, 15.0])
def test_turning_is_similar_to_moving(force):
    """With torques and damping scaled by inertia and speed, both laws give one course."""
    free, turns = (dataclasses.replace(law, threshold=0.0) for law in (LAW, TURNS))
    per_newton = 0.01 * 0.5 / 0.15
    push = jnp.array([force, 0.0, 0.0])
    moved = driven(free, cooperation.intent_rules(), push, 400.0, 1.0)
    turned = driven(turns, cooperation.orientation_rules(), per_newton * push, 4.0, 1.0)
    np.testing.assert_allclose(
        np.array(turned) / turns.max_speed, np.array(moved) / free.max_speed, rtol=2e-3, atol=1e-4
    )


@pytest.mark.parametrize("of_the_law", ["translation", "rotation"])
def test_laws_of_different_units_are_refused(of_the_law):
    pairs = {
        "translation": (cooperation.intent_rules(), TURNS),
        "rotation": (cooperation.orientation_rules(), LAW),
    }
    one, vector = jnp.asarray(1.0), jnp.ones(3)
    with pytest.raises(BadParameter, match=f"damping law is for {of_the_law}"):
        cooperation.damping_step(one, vector, vector, one, *pairs[of_the_law])
