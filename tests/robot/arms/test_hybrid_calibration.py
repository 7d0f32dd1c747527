"""Calibration: identifiability, planned poses, and recovered parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import transforms
from dartjax.robot import BadParameter, ClosureTooLarge, DegenerateGeometry, StatusCode
from dartjax.robot.arms import (
    STRUCTURE_NAMES,
    calibrate_from_legs,
    calibrate_from_points,
    checked_calibration,
    hybrid_inverse,
    identifiability_of_legs,
    identifiability_of_points,
    leg_lengths,
    perturbed,
    plan_calibration,
    spine_hybrid,
    structure_of,
    tool_points,
    with_structure,
)
from dartjax.simulation._hybrid_calibration import CALIBRATION_WAYPOINTS_MM
from dartjax.transforms import SE3

T_TRACKER_BASE = jnp.array([300.0, -200.0, 900.0, 0.5, -0.8, 0.3])


@pytest.fixture(scope="module")
def robot():
    with jax.enable_x64(True):
        return spine_hybrid()


@pytest.fixture(scope="module")
def built(robot):
    """A robot with manufacturing errors."""
    with jax.enable_x64(True):
        return perturbed(robot, 1.8, 3.5e-3, key=jax.random.key(4))


@pytest.fixture(scope="module")
def legs_q(robot):
    """Joints of the published waypoints, tool upright."""
    with jax.enable_x64(True):
        poses = jnp.concatenate(
            [jnp.asarray(CALIBRATION_WAYPOINTS_MM, float), jnp.zeros((15, 2))], axis=1
        )
        return jax.vmap(lambda pose: hybrid_inverse(pose, robot)[0])(poses)


@pytest.fixture(scope="module")
def plan(robot):
    with jax.enable_x64(True):
        return jax.jit(lambda: plan_calibration(robot, 40, key=jax.random.key(5)))()


calibrate = jax.jit(calibrate_from_points)


def measured(built, q, noise_mm, seed=0):
    points = transforms.apply(SE3.exp(T_TRACKER_BASE), tool_points(q, built))
    return points + noise_mm * jax.random.normal(jax.random.key(seed), points.shape, points.dtype)


def test_structure_round_trip(robot, x64):
    moved = with_structure(robot, structure_of(robot) + jnp.arange(7.0))
    np.testing.assert_allclose(structure_of(moved) - structure_of(robot), np.arange(7.0))


def test_upright_legs_determine_four_of_seven_parameters(robot, legs_q, x64):
    found = jax.jit(identifiability_of_legs)(legs_q, robot)
    assert int(found.rank) == 4
    seen = dict(zip(STRUCTURE_NAMES, np.asarray(found.seen), strict=True))
    for name in ("L2", "theta", "d"):
        assert seen[name] < 1e-9, name
    for name in ("l12", "l13", "L1", "gamma"):
        assert seen[name] > 1.0 - 1e-9, name


def test_planned_poses_determine_all_parameters(robot, plan, x64):
    seen_by = jax.jit(identifiability_of_points)
    found = seen_by(plan, robot)
    assert int(found.rank) == 13
    least = float(found.singular_values[-1])
    rng = np.random.default_rng(0)
    share = rng.random((40, 5))
    share[:, :2] = 0.3 + 0.4 * share[:, :2]  # poses that close for certain
    q = robot.lower[None, :5] + share * (robot.upper - robot.lower)[None, :5]
    random = seen_by(q, robot)
    assert least > 1.5 * float(random.singular_values[-1])
    assert (plan >= robot.lower[None, :5]).all()
    assert (plan <= robot.upper[None, :5]).all()


@pytest.mark.slow
def test_exact_points_recover_the_parameters(robot, built, plan, x64):
    found, status = calibrate(plan, measured(built, plan, 0.0), robot)
    assert int(status) == StatusCode.OK
    np.testing.assert_allclose(structure_of(found.robot), structure_of(built), atol=1e-6)
    expected = SE3.exp(T_TRACKER_BASE).as_matrix()
    np.testing.assert_allclose(found.T_tracker_base.as_matrix(), expected, atol=1e-6)
    assert float(found.residual_rms_mm) < 1e-6


@pytest.mark.slow
def test_stated_sigma_is_the_spread_of_repeated_calibrations(robot, built, plan, x64):
    exact, rng = measured(built, plan, 0.0), np.random.default_rng(0)
    noise = 0.02 * rng.standard_normal((60, *exact.shape))
    found = [calibrate(plan, exact + each, robot)[0] for each in noise]
    error = np.stack([structure_of(each.robot) - structure_of(built) for each in found])
    sigma = np.mean([each.sigma for each in found], axis=0)
    np.testing.assert_allclose(error.std(0), sigma, rtol=0.35)
    assert (np.abs(error.mean(0)) < 0.5 * error.std(0)).all()


def test_upright_points_leave_directions_undetermined(robot, built, legs_q, x64):
    upright = jnp.tile(legs_q, (3, 1))[:40]  # as many as planned: one compiled program
    found, status = calibrate(upright, measured(built, upright, 0.0), robot)
    assert int(status) == StatusCode.DEGENERATE_GEOMETRY
    assert np.isinf(np.asarray(found.sigma)).any()


def test_legs_alone_reproduce_those_legs(robot, built, legs_q, x64):
    legs = leg_lengths(tool_points(legs_q, built))
    found, seen, status = jax.jit(calibrate_from_legs)(legs_q, legs, robot)
    assert int(status) == StatusCode.DEGENERATE_GEOMETRY
    assert int(seen.rank) == 4
    before = np.abs(leg_lengths(tool_points(legs_q, robot)) - legs)
    after = np.abs(leg_lengths(tool_points(legs_q, found)) - legs)
    assert before.max() > 0.3
    assert after.max() < 1e-3
    kept = np.asarray(structure_of(found) - structure_of(robot))[[3, 5, 6]]
    np.testing.assert_allclose(kept, 0.0, atol=1e-9)


def test_missing_measurements_have_a_status(robot, built, plan, x64):
    points = measured(built, plan, 0.0).at[3, 1].set(jnp.nan)
    assert int(calibrate(plan, points, robot)[1]) == StatusCode.BAD_PARAMETER


@pytest.mark.parametrize("fault", ["metres", "swapped"])
def test_points_that_do_not_fit_have_a_status(robot, plan, x64, fault):
    points = transforms.apply(SE3.exp(T_TRACKER_BASE), tool_points(plan, robot))
    wrong = (
        points / 1000.0
        if fault == "metres"
        else points.at[jnp.array([0, 1])].set(points[jnp.array([1, 0])])
    )
    found, status = calibrate(plan, wrong, robot)
    assert float(found.residual_rms_mm) > 5.0
    assert int(status) == StatusCode.CLOSURE_TOO_LARGE


def test_two_exchanged_points_next_to_each_other_have_a_status(robot, built, plan, x64):
    """Their share in the rms is small; the worst point shows it."""
    points = measured(built, plan, 0.0)
    apart = np.linalg.norm(np.asarray(points[:, None] - points[None]), axis=-1)
    i, j = np.argwhere((apart > 12.0) & (apart < 80.0))[0]
    found, status = calibrate(
        plan, points.at[jnp.array([i, j])].set(points[jnp.array([j, i])]), robot
    )
    assert int(status) == StatusCode.CLOSURE_TOO_LARGE
    assert float(found.residual_max_mm) > 5.0
    assert float(found.residual_max_mm) > 1.5 * float(found.residual_rms_mm)


def test_legs_in_another_unit_have_a_status(robot, built, legs_q, x64):
    legs = leg_lengths(tool_points(legs_q, built)) / 1000.0
    _, _, status = jax.jit(calibrate_from_legs)(legs_q, legs, robot)
    assert int(status) == StatusCode.CLOSURE_TOO_LARGE


def test_the_error_of_a_calibration_has_its_numbers(robot, built, plan, legs_q, x64):
    points = measured(built, plan, 0.0)
    assert float(checked_calibration(plan, points, robot).residual_max_mm) < 1e-3
    with pytest.raises(ClosureTooLarge, match=r"mm rms.*span 0\.\d+ and the poses \d+.*in mm"):
        checked_calibration(plan, points / 1000.0, robot)
    with pytest.raises(ClosureTooLarge, match=r"mm rms and \d+.*at most.*another order"):
        checked_calibration(plan, points[::-1], robot)
    with pytest.raises(BadParameter, match=r"points_tracker\[3\] is not finite"):
        checked_calibration(plan, points.at[3, 1].set(jnp.nan), robot)
    with pytest.raises(BadParameter, match=r"shape \(39, 3\)"):
        checked_calibration(plan, points[1:], robot)
    upright = jnp.tile(legs_q, (3, 1))[:40]
    with pytest.raises(DegenerateGeometry, match=r"40 poses determine \d of 13"):
        checked_calibration(upright, measured(built, upright, 0.0), robot)
