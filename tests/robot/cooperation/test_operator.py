"""Simulated hands on the robot: stability, symmetry, thresholds, gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import BadParameter, cooperation
from dartjax.robot.cooperation import Intention
from dartjax.simulation import _hand_motions
from tests.gradients import assert_gradient

LAWS = {
    "high": cooperation.fixed_damping(62.6),
    "low": cooperation.fixed_damping(10.4),
    "rho0": cooperation.lowest_damping(),
    "ours": cooperation.intent_rules(),
}
ARMS = (50.0, 400.0, 1500.0)


@pytest.fixture(scope="module")
def motions():
    return _hand_motions.random_hand_motions(np.random.default_rng(11), 2)


@pytest.fixture(scope="module")
def study(motions):
    """Numbers by measure (law, arm, motion), and the traces."""
    controllers = _hand_motions.damping_controllers([(law, False) for law in LAWS.values()])
    numbers, drags = _hand_motions.simulate_drags(controllers, jnp.array(ARMS), motions)
    return {key: np.asarray(value) for key, value in numbers.items()}, drags


def of(study, measure, law):
    return study[0][measure][list(LAWS).index(law)]


def test_only_fixed_low_damping_swings_on_a_stiff_arm(study):
    assert (of(study, "swing_mm", "low")[ARMS.index(1500.0)] > 5.0).any()
    for law in ("high", "rho0", "ours"):
        assert (of(study, "swing_mm", law) < 5.0).all()


def test_hands_arrive(study):
    for law in ("high", "rho0", "ours"):
        assert (of(study, "error_mm", law)[1:] < 3.0).all()


def test_rules_save_work_and_stop_better_than_the_lowest_damping(study):
    work = of(study, "work_J", "ours").mean(1) / of(study, "work_J", "high").mean(1)
    assert (work < 0.85).all()
    for measure in ("overshoot_mm", "tremor_mm"):
        assert (of(study, measure, "ours").mean(1) < 0.9 * of(study, measure, "rho0").mean(1)).all()


def test_damping_is_that_of_the_law(study):
    _, drags = study
    damping = np.asarray(drags.damping)
    np.testing.assert_allclose(damping[0], 62.6, rtol=1e-5)
    lag, stiffness = cooperation.Admittance().loop_lag, np.asarray(drags.stiffness)
    bound = (-2.0 + np.sqrt(4.0 + 8.0 * lag**2 * stiffness)) / (2.0 * lag)
    # The estimate of a tick rules from the next millisecond on.
    assert (damping[2:, ..., 1:] > 1.19 * bound[2:, ..., :-1]).all()


def still(force):
    nothing = jnp.zeros((300, 3))
    return Intention(nothing, nothing, nothing + jnp.asarray(force)[None], nothing)


def test_a_hand_below_the_threshold_moves_nothing():
    drag = cooperation.simulate_drag(
        still([0.4, -0.4, 0.4]),
        jnp.asarray(400.0),
        LAWS["low"],
        cooperation.Admittance(),
        num_practice=0,
    )
    np.testing.assert_array_equal(drag.position, 0.0)
    assert (drag.work == 0.0).all()


def test_the_simulation_is_rotation_invariant(motions):
    """The robot has no preferred axis."""
    intention = jax.tree.map(lambda leaf: leaf[0, :2500], motions.intention)
    turn = cooperation.tilt_rotation(jnp.asarray(0.7), jnp.asarray(-1.1))
    drag = jax.jit(
        lambda motion: cooperation.simulate_drag(
            motion, jnp.asarray(400.0), LAWS["high"], cooperation.Admittance(), num_practice=0
        )
    )
    turned = drag(jax.tree.map(lambda leaf: leaf @ turn.T, intention))
    np.testing.assert_allclose(turned.position, drag(intention).position @ turn.T, atol=0.02)


@pytest.mark.slow
def test_the_gradient_of_the_work_in_the_damping(x64):
    time = jnp.arange(300) * 0.001
    position = jnp.stack([300.0 * time**2, 50.0 * time**2, 0.0 * time], axis=1)
    velocity = jnp.gradient(position, 0.001, axis=0)
    motion = Intention(position, velocity, 0.0 * position, 0.0 * position)
    law = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), LAWS["low"])

    def work(damping):
        own = eqx.tree_at(lambda x: (x.least, x.most), law, (damping[0], damping[0]))
        drag = cooperation.simulate_drag(
            motion, jnp.asarray(300.0), own, cooperation.Admittance(), num_practice=0
        )
        return 1000.0 * drag.work[-1]

    assert_gradient(work, jnp.array([30.0]), rtol=1e-4)


def test_the_curve_of_a_motion_is_smooth_and_arrives(motions):
    for i in range(len(motions.goal)):
        velocity = np.asarray(motions.intention.velocity[i])
        speed = np.linalg.norm(velocity, axis=1)
        assert speed.max() < 250.0 and np.abs(np.diff(velocity, axis=0)).max() < 3.0
        stop = round(float(motions.stop[i]) * 1000)
        assert speed[stop + 2 :].max() < 1.0
        last = velocity[stop - 45] / speed[stop - 45]
        assert last @ np.asarray(motions.direction[i]) > 0.95


@pytest.mark.parametrize(
    ("law", "steps", "words"),
    [
        (cooperation.Admittance(step=0.002), 300, "step is 0.002 s"),
        (cooperation.orientation_admittance(), 300, "rotation"),
        (cooperation.Admittance(), 305, "305 samples"),
    ],
)
def test_a_law_of_another_clock_or_unit_is_refused(law, steps, words):
    nothing = jnp.zeros((steps, 3))
    motion = Intention(nothing, nothing, nothing, nothing)
    with pytest.raises(BadParameter, match=words):
        cooperation.simulate_drag(motion, jnp.asarray(400.0), LAWS["high"], law)


def test_a_traced_step_of_another_length_gives_nan():
    push = still([5.0, 0.0, 0.0])
    run = jax.jit(
        lambda law: cooperation.simulate_drag(
            push, jnp.asarray(400.0), LAWS["high"], law, num_practice=0
        )
    )
    assert np.isnan(run(cooperation.Admittance(step=0.002)).position).all()
    assert np.isfinite(np.asarray(run(cooperation.Admittance()).position)).all()
