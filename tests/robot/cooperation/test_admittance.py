"""The admittance against its differential equation; thresholds, limits, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import robot
from dartjax.robot import cooperation
from dartjax.robot.cooperation import Admittance, ForceFilter
from tests.gradients import assert_gradient

LAW = Admittance()
FORCE = jnp.array([3.0, -2.0, 1.0])


def test_it_solves_its_differential_equation():
    """v(t) = F / D (1 - exp(-D t / M)), in mm/s."""
    damping = jnp.asarray(30.0)

    def step(velocity, _):
        return cooperation.admittance_step(velocity, FORCE, damping, LAW)[0], None

    found = jax.lax.scan(step, jnp.zeros(3), length=50)[0]
    expected = 1000.0 * FORCE / 30.0 * (1.0 - np.exp(-30.0 * 0.05 / 2.0))
    np.testing.assert_allclose(found, expected, rtol=0.01)


@pytest.mark.parametrize("step", [1e-4, 0.01, 1.0])
def test_every_step_size_is_stable(step):
    law, velocity = Admittance(step=step), jnp.array([100.0, 0.0, 0.0])
    for _ in range(5):
        velocity, _ = cooperation.admittance_step(velocity, jnp.zeros(3), jnp.asarray(60.0), law)
        assert 0.0 <= float(velocity[0]) <= 100.0


def test_below_the_threshold_nothing_moves():
    state, velocity = ForceFilter(jnp.zeros(3), jnp.zeros(3)), jnp.zeros(3)
    for _ in range(100):
        state = cooperation.filter_step(state, jnp.array([0.4, 0.4, -0.4]), LAW)  # 0.69 N
        push = cooperation.dead_band(state.second, LAW.threshold)
        velocity, _ = cooperation.admittance_step(velocity, push, jnp.asarray(8.0), LAW)
    np.testing.assert_array_equal(velocity, 0.0)


def test_a_released_robot_comes_to_rest_exactly():
    def step(velocity, _):
        return cooperation.admittance_step(velocity, jnp.zeros(3), jnp.asarray(8.0), LAW)[0], None

    assert (jax.lax.scan(step, FORCE * 30.0, length=5000)[0] == 0.0).all()


def test_the_dead_band_is_continuous_and_keeps_the_direction():
    unit = FORCE / jnp.linalg.norm(FORCE)
    np.testing.assert_array_equal(cooperation.dead_band(0.79 * unit, 0.8), 0.0)
    np.testing.assert_allclose(cooperation.dead_band(0.8001 * unit, 0.8), 1e-4 * unit, atol=1e-6)
    np.testing.assert_allclose(cooperation.dead_band(5.0 * unit, 0.8), 4.2 * unit, rtol=1e-5)


def test_the_gradient_of_the_dead_band(x64):
    assert_gradient(lambda f: jnp.sum(cooperation.dead_band(f, 0.8) ** 3), np.asarray(FORCE))
    inside = jax.grad(lambda f: jnp.sum(cooperation.dead_band(f, 0.8)))(jnp.zeros(3))
    np.testing.assert_array_equal(inside, 0.0)


def test_the_low_pass_halves_the_power_at_its_cutoff():
    time = np.arange(2000) * 0.001
    wave = jnp.asarray(np.sin(2.0 * np.pi * 20.0 * time), jnp.float32)

    def step(state, value):
        state = cooperation.filter_step(state, jnp.full(3, value), LAW)
        return state, state.second[0]

    start = ForceFilter(jnp.zeros(3), jnp.zeros(3))
    out = np.asarray(jax.lax.scan(step, start, wave)[1])[1000:]
    assert np.sqrt(2.0) * out.std() == pytest.approx(np.sqrt(0.5), abs=0.02)


def test_the_speed_is_limited_in_its_direction():
    velocity, _ = cooperation.admittance_step(jnp.zeros(3), 1e4 * FORCE, jnp.asarray(8.0), LAW)
    np.testing.assert_allclose(velocity, 150.0 * FORCE / jnp.linalg.norm(FORCE), rtol=1e-5)


def test_joint_rates_keep_their_direction():
    rates, most = jnp.array([4.0, -1.0, 0.5]), jnp.array([2.0, 2.0, 2.0])
    np.testing.assert_allclose(cooperation.limit_rates(rates, most), rates / 2.0)
    np.testing.assert_allclose(cooperation.limit_rates(rates / 4.0, most), rates / 4.0)


def test_walls_are_approached_slowly_and_never_crossed():
    lower, upper = jnp.full(3, -10.0), jnp.full(3, 10.0)
    position, velocity = jnp.zeros(3), jnp.array([100.0, -100.0, 0.0])
    for _ in range(2000):
        slow = cooperation.stay_inside(velocity, position, lower, upper)
        position = position + 0.001 * slow
    np.testing.assert_allclose(position, [10.0, -10.0, 0.0], atol=1e-2)
    assert (jnp.abs(position) <= 10.0).all()
    outside = cooperation.stay_inside(velocity, jnp.array([12.0, 0.0, 0.0]), lower, upper)
    assert float(outside[0]) <= 0.0


def test_the_button_selects_translation_or_rotation():
    move, turn = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(
        cooperation.hand_velocity(move, turn, jnp.asarray(False)), [1, 2, 3, 0, 0, 0]
    )
    np.testing.assert_allclose(
        cooperation.hand_velocity(move, turn, jnp.asarray(True)), [0, 0, 0, 0.1, 0.2, 0], rtol=1e-6
    )


def test_rotation_obeys_the_same_law_in_rad():
    law = cooperation.orientation_admittance()
    velocity, _ = cooperation.admittance_step(
        jnp.zeros(3), jnp.array([0.1, 0.0, 0.0]), jnp.asarray(0.1), law
    )
    assert float(velocity[0]) == pytest.approx(0.001 * 0.1 / (0.02 + 0.001 * 0.1), rel=1e-5)


def test_an_invalid_reading_stops_the_robot():
    bad = jnp.array([jnp.nan, 1.0, 1.0])
    velocity, status = cooperation.admittance_step(FORCE, bad, jnp.asarray(8.0), LAW)
    assert status == robot.StatusCode.BAD_WRENCH and (velocity == 0.0).all()


@pytest.mark.parametrize("name", ["inertia", "max_speed", "step", "cutoff", "lag"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_invalid_parameters_are_rejected(name, value):
    with pytest.raises(robot.BadParameter, match=name):
        Admittance(**{name: value})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_bad_sample_does_not_last(bad):
    """All states stay finite; while bad samples last the robot slows down."""
    law, damping = LAW, cooperation.intent_rules()
    zero, good = jnp.zeros(3), jnp.array([5.0, 0.0, 0.0])

    @jax.jit
    def advance(state, force):
        filtered, resistance, arm, velocity = state
        filtered = cooperation.filter_step(filtered, force, law)
        arm = cooperation.arm_estimate_step(arm, force, force)
        push = cooperation.dead_band(filtered.second, law.threshold)
        resistance = cooperation.damping_step(
            resistance, push, velocity, arm.stiffness, damping, law
        )
        velocity, status = cooperation.admittance_step(velocity, push, resistance, law)
        return (filtered, resistance, arm, velocity), status

    arm = cooperation.start_arm_estimate(300.0, zero, zero)
    state = (ForceFilter(zero, zero), damping.most, arm, zero)
    for _ in range(300):
        state, _ = advance(state, good)
    speed = float(state[3][0])
    state, _ = advance(state, jnp.array([0.0, bad, 0.0]))
    assert int(state[0].status) == robot.StatusCode.BAD_WRENCH
    after, _ = advance(state, good)
    assert int(after[0].status) == robot.StatusCode.OK
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    assert float(after[3][0]) > 0.5 * speed
    for _ in range(3000):
        state, _ = advance(state, jnp.full(3, bad))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    np.testing.assert_allclose(state[3], 0.0, atol=1e-3)


@pytest.mark.parametrize(("velocity", "damping"), [(np.nan, 20.0), (1.0, np.nan), (1.0, -1.0)])
def test_an_invalid_velocity_or_damping_stops_the_robot(velocity, damping):
    found, status = cooperation.admittance_step(
        jnp.full(3, velocity), FORCE, jnp.asarray(damping), LAW
    )
    np.testing.assert_array_equal(found, 0.0)
    assert int(status) == robot.StatusCode.BAD_PARAMETER


@pytest.mark.parametrize("place", range(4))
def test_bad_inputs_keep_the_damping(place):
    damping = cooperation.intent_rules()
    values = [jnp.asarray(50.0), FORCE, jnp.ones(3), jnp.asarray(400.0)]
    values[place] = values[place] * jnp.nan
    found = cooperation.damping_step(*values, damping, LAW)
    if place:
        assert float(found) == 50.0
    assert np.isfinite(found)


def test_rates_and_positions_that_are_not_finite_stop_the_robot():
    rates = cooperation.limit_rates(jnp.array([1.0, jnp.nan, 50.0]), jnp.ones(3))
    np.testing.assert_array_equal(rates, 0.0)
    box = -jnp.ones(3), jnp.ones(3)
    for velocity, position in ((1.0, jnp.nan), (jnp.nan, 0.0)):
        inside = cooperation.stay_inside(jnp.full(3, velocity), jnp.full(3, position), *box)
        np.testing.assert_array_equal(inside, 0.0)
