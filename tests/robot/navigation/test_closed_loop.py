"""Closed-loop positioning of a robot with kinematic errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import StatusCode
from dartjax.robot.arms import hybrid_forward, hybrid_inverse, perturbed, spine_hybrid, tool_frame
from dartjax.robot.navigation import (
    LoopOptions,
    close_loop,
    closed_loop_correct,
    error_of,
    swing_only,
    tool_pose_of,
)
from dartjax.transforms import SE3, SO3
from tests.gradients import assert_gradient

ROBOT = spine_hybrid()
GOAL = jnp.array([620.0, 480.0, -140.0, 0.1, -0.15])


def run(goal, key, gain=1.0, noise=1.0, drift=0.0, options=LoopOptions()):
    """The loop with a built robot, and the tool's true error at its end. `gain` scales the
    robot's response about the first command."""
    built = perturbed(ROBOT, 1.8, 3.5e-3, key=key)

    def moved(command):
        q, _ = hybrid_inverse(goal + gain * (command - goal), ROBOT)
        return tool_frame(hybrid_forward(q, built)[0])

    def measure(command, own):
        scale = jnp.array([*[options.noise_mm] * 3, *[options.noise_rad] * 3])
        error = SE3.exp(noise * scale * jax.random.normal(own, (6,)))
        return (
            (moved(command) @ error).inverse()
            @ tool_frame(goal)
            @ SE3.from_translation(drift * jnp.ones(3))
        )

    history, status = close_loop(goal, measure, ROBOT, options, key=jax.random.fold_in(key, 1))
    left = error_of(moved(history.final.command).inverse() @ tool_frame(goal))
    opened = error_of(moved(goal).inverse() @ tool_frame(goal))
    return history, status, left, opened


batch = jax.jit(jax.vmap(run, (None, 0, None, None, None)))
KEYS = jax.random.split(jax.random.key(0), 100)


@pytest.mark.slow
def test_without_noise_the_error_falls_to_the_mismatch_of_a_mismatch():
    history, status, left, opened = batch(GOAL, KEYS, 1.0, 0.0, 0.0)
    assert np.all(status == StatusCode.OK)
    assert np.mean(opened[:, 0]) > 1.0
    assert np.max(left[:, 0]) < 0.03 and np.max(left[:, 1]) < 1e-4
    assert np.max(history.final.measurements) <= 3


@pytest.mark.slow
def test_with_noise_it_reaches_its_tolerance():
    history, status, left, _ = batch(GOAL, KEYS, 1.0, 1.0, 0.0)
    done = np.asarray(status) == StatusCode.OK
    assert done.mean() > 0.98
    assert np.mean(np.asarray(left)[done, 0]) < 0.1
    assert np.mean(np.asarray(left)[done, 1]) < np.deg2rad(0.05)
    assert np.max(np.asarray(history.final.measurements)) <= 5


@pytest.mark.slow
def test_a_robot_that_overshoots_is_stopped():
    """A response of three times the command doubles the error in each round."""
    history, status, _, _ = batch(GOAL, KEYS, 3.0, 0.0, 0.0)
    assert np.all(status == StatusCode.CLOSURE_TOO_LARGE)
    assert np.all(history.final.measurements < 5)


def test_an_error_beyond_one_step_is_rejected_without_motion():
    history, status, _, _ = batch(GOAL, KEYS, 1.0, 0.0, 30.0)
    assert np.all(status == StatusCode.CLOSURE_TOO_LARGE)
    np.testing.assert_allclose(history.final.command, np.tile(GOAL, (len(KEYS), 1)))


def test_a_tool_that_is_not_measured_is_rejected():
    _, status, _, _ = batch(GOAL, KEYS, 1.0, jnp.nan, 0.0)
    assert np.all(status == StatusCode.BAD_PARAMETER)


def test_a_goal_beyond_the_limits_is_rejected():
    far = GOAL.at[1].set(900.0)
    _, status, _, _ = batch(far, KEYS, 1.0, 0.0, 0.0)
    assert not np.any(status == StatusCode.OK)


def test_one_correction_is_exact_for_a_robot_as_modelled():
    command = GOAL + jnp.array([1.0, -2.0, 0.5, 0.01, -0.02])
    T_tool_path = tool_frame(command).inverse() @ tool_frame(GOAL)
    np.testing.assert_allclose(closed_loop_correct(command, T_tool_path), GOAL, atol=1e-4)
    np.testing.assert_allclose(tool_pose_of(tool_frame(GOAL)), GOAL, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_swing_maps_the_axis_and_does_not_rotate_about_it(seed):
    T = SE3.exp(jax.random.normal(jax.random.key(seed), (6,)))
    axis = jnp.array([0.0, 0.6, 0.8])
    swing = swing_only(T, axis)
    np.testing.assert_allclose(swing.rotation().apply(axis), T.rotation().apply(axis), atol=1e-5)
    assert float(jnp.dot(swing.rotation().log(), axis)) == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_allclose(swing.translation(), T.translation())


def test_rotation_about_the_wire_is_no_error():
    turned = SE3.from_rotation(SO3.from_z_radians(0.7))
    np.testing.assert_allclose(error_of(turned), 0.0, atol=1e-6)


def test_gradient_of_a_correction(x64):
    goal = GOAL.astype(jnp.float64)
    weight = jnp.array([1.0, -2.0, 0.5, 30.0, 20.0])

    def corrected(command):
        away = SE3.exp(jnp.array([1.0, 2.0, -1.0, 0.02, 0.01, 0.3]))
        return closed_loop_correct(command, away) @ weight

    assert_gradient(corrected, goal, rtol=1e-5)
