"""The six-leg guide robot: round trips, its Jacobian, noise by Monte Carlo, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dartjax.robot import StatusCode
from dartjax.robot.arms import (
    bone_mounted_guide,
    guide_condition,
    guide_error,
    guide_forward,
    guide_inverse,
    guide_jacobian,
    leg_excess,
    neutral_pose,
)
from dartjax.transforms import SE3, SO3, perturb
from tests.gradients import assert_gradient

forward_all = jax.jit(jax.vmap(guide_forward, in_axes=(0, None)))
inverse_all = jax.jit(jax.vmap(guide_inverse, in_axes=(0, None)))


@pytest.fixture(scope="module")
def robot():
    with jax.enable_x64(True):
        return bone_mounted_guide()


def poses(robot, count, seed=0):
    """Within 10 mm and 15 degrees per axis of the neutral pose."""
    rng = np.random.default_rng(seed)
    shift = jnp.asarray(rng.uniform(-10.0, 10.0, (count, 3)))
    turn = jnp.asarray(np.deg2rad(rng.uniform(-15.0, 15.0, (count, 3))))
    return jax.vmap(lambda w, v: perturb(neutral_pose(robot), w, v))(turn, shift)


def test_neutral_legs_by_hand(robot, x64):
    """All legs are equal: 22 and 16 mm from the axis, 30 degrees and 50 mm apart."""
    legs, status = guide_inverse(neutral_pose(robot), robot)
    across = 22.0**2 + 16.0**2 - 2.0 * 22.0 * 16.0 * np.cos(np.deg2rad(30.0))
    np.testing.assert_allclose(legs, np.sqrt(across + 2500.0), atol=1e-9)
    assert int(status) == StatusCode.OK


@pytest.mark.slow
def test_round_trips_of_100_000_poses(robot, x64):
    every = poses(robot, 100_000)
    legs, status = inverse_all(every, robot)
    assert np.isin(status, (StatusCode.OK, StatusCode.JOINT_LIMIT)).all()
    back, again = forward_all(legs, robot)
    np.testing.assert_array_equal(again, status)
    assert np.abs(back.as_matrix() - every.as_matrix()).max() < 1e-9
    outside = np.asarray(jax.vmap(lambda each: leg_excess(each, robot))(legs)).max(1) > 0.0
    np.testing.assert_array_equal(outside, np.asarray(status) == StatusCode.JOINT_LIMIT)


def test_jacobian_is_the_derivative(robot, x64):
    pose = jax.tree.map(lambda leaf: leaf[0], poses(robot, 1))
    jacobian, step = np.asarray(guide_jacobian(pose, robot)), 1e-6

    @jax.jit
    def legs(move):
        return guide_inverse(perturb(pose, move[3:], move[:3]), robot)[0]

    for axis, move in enumerate(step * np.eye(6)):
        expected = (legs(jnp.asarray(move)) - legs(jnp.asarray(-move))) / (2.0 * step)
        np.testing.assert_allclose(jacobian[:, axis], expected, atol=1e-7)


@pytest.mark.slow
def test_tool_error_is_that_of_a_monte_carlo(robot, x64):
    pose, tool = jax.tree.map(lambda leaf: leaf[1], poses(robot, 2)), jnp.array([5.0, 0.0, 40.0])
    predicted = guide_error(pose, robot, 0.02, tool)
    legs, _ = guide_inverse(pose, robot)
    noise = 0.02 * np.random.default_rng(0).standard_normal((20_000, 6))
    moved, _ = forward_all(legs[None] + noise, robot)
    points = np.asarray(jax.vmap(lambda T: T.apply(tool))(moved))
    covariance = np.cov(points.T)
    scale = np.trace(covariance)
    np.testing.assert_allclose(predicted.position_covariance, covariance, atol=0.03 * scale)
    turns = jax.vmap(lambda T: (T.rotation() @ pose.rotation().inverse()).log())(moved)
    rms = np.sqrt(np.mean(np.sum(np.asarray(turns) ** 2, axis=1)))
    np.testing.assert_allclose(predicted.rotation_rms_rad, rms, rtol=0.03)


def test_leg_noise_stays_within_a_tenth_of_a_millimetre(robot, x64):
    """The accuracy that [Y] states for such a robot, with leg errors of 0.02 mm."""
    errors = jax.jit(jax.vmap(lambda T: guide_error(T, robot, 0.02)))(poses(robot, 2000))
    assert errors.position_rms_mm.max() < 0.1


def test_gradient_of_a_leg(robot, x64):
    weights = jnp.arange(1.0, 7.0)

    def length(move):
        moved = perturb(neutral_pose(robot), move[3:], move[:3])
        return jnp.sum(weights * guide_inverse(moved, robot)[0])

    assert_gradient(length, jnp.array([1.0, -2.0, 3.0, 0.1, 0.2, -0.1]))


def test_status_of_the_forward_map(robot, x64):
    neutral, _ = guide_inverse(neutral_pose(robot), robot)
    legs = jnp.stack(
        [
            neutral,
            neutral.at[0].set(jnp.nan),
            neutral.at[0].set(500.0),  # no leg pair can part that far
            neutral + 20.0,  # straight up, beyond the legs' range
        ]
    )
    found, status = forward_all(legs, robot)
    expected = ["OK", "BAD_PARAMETER", "UNREACHABLE_POSE", "JOINT_LIMIT"]
    assert [StatusCode(int(each)).name for each in status] == expected
    finite = np.isfinite(np.asarray(found.as_matrix())).all((1, 2))
    np.testing.assert_array_equal(finite, [True, False, False, True])


def test_a_platform_turned_by_a_quarter_is_singular(robot, x64):
    """The known singularity of the Gough platform."""
    neutral = neutral_pose(robot)
    wound = SE3.from_rotation_and_translation(SO3.from_z_radians(jnp.pi / 2), neutral.translation())
    _, status = guide_inverse(wound, robot)
    assert int(status) == StatusCode.SINGULAR_CONFIGURATION
    assert float(guide_condition(wound, robot)) > 1e6
    assert float(guide_condition(neutral, robot)) < 10.0


def test_a_platform_below_the_base_is_out_of_reach(robot, x64):
    """The legs of the mirrored pose are the neutral ones."""
    below = SE3.from_translation(-neutral_pose(robot).translation())
    legs, status = jax.jit(guide_inverse)(below, robot)
    assert int(status) == StatusCode.UNREACHABLE_POSE
    assert np.isnan(legs).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_the_forward_map_returns_every_pose_with_legs(seed):
    """For poses far outside the workspace, whole batches of them included."""
    with jax.enable_x64(True):
        robot, rng = bone_mounted_guide(), np.random.default_rng(seed)
        turn, shift = rng.uniform(-3.0, 3.0, (300, 3)), rng.uniform(-90.0, 90.0, (300, 3))
        far = jax.vmap(lambda w, v: perturb(neutral_pose(robot), w, v))(
            jnp.asarray(turn), jnp.asarray(shift)
        )
        legs, status = inverse_all(far, robot)
        reached = np.isin(status, (StatusCode.OK, StatusCode.JOINT_LIMIT))
        back, _ = forward_all(legs, robot)
        gap = np.asarray(back.as_matrix() - far.as_matrix())[reached]
        assert reached.any()
        assert np.abs(gap).max() < 1e-4
