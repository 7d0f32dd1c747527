"""Least squares of the arm, and the bound of stability against the roots of the loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from dartjax.robot import cooperation
from dartjax.robot.cooperation import RecursiveLeastSquares

M, LAG = 2.0, 0.03


def rls(phis, ys, forget):
    start = RecursiveLeastSquares(jnp.zeros(2), 1e6 * jnp.eye(2))

    def step(state, row):
        state = cooperation.recursive_least_squares_step(state, row[0], row[1], forget)
        return state, state.theta

    rows = (jnp.asarray(phis, jnp.float32), jnp.asarray(ys, jnp.float32))
    return np.asarray(jax.jit(lambda: jax.lax.scan(step, start, rows)[1])())


def test_recursive_least_squares_is_weighted_least_squares():
    rng = np.random.default_rng(0)
    phis, forget = rng.normal(size=(60, 2)), 0.95
    ys = phis @ [3.0, -2.0] + rng.normal(0.0, 0.1, 60)
    weight = np.sqrt(forget ** np.arange(59, -1, -1))
    expected, *_ = np.linalg.lstsq(phis * weight[:, None], ys * weight, rcond=None)
    np.testing.assert_allclose(rls(phis, ys, forget)[-1], expected, rtol=1e-3)


def test_a_stiffening_arm_is_followed():
    rng = np.random.default_rng(1)
    stiffness = np.repeat([250.0, 700.0], 300)
    phis = np.stack([rng.normal(0.0, 1e-3, 600), rng.normal(0.0, 1e-2, 600)], axis=1)  # m, m/s
    ys = phis[:, 0] * stiffness + 15.0 * phis[:, 1] + rng.normal(0.0, 0.02, 600)
    found = rls(phis, ys, 0.98)[:, 0]
    assert found[299] == pytest.approx(250.0, rel=0.05)
    assert found[599] == pytest.approx(700.0, rel=0.05)


@pytest.mark.parametrize("stiffness", [80.0, 400.0, 1500.0])
def test_the_stiffness_is_estimated_despite_voluntary_motion(stiffness):
    """Spring and damper in the band, plus a slow voluntary pull and noise."""
    rng, time = np.random.default_rng(2), np.arange(600) * 0.01
    band = signal.butter(2, (1.5, 4.5), "bandpass", fs=100.0, output="sos")
    position = np.stack([signal.sosfilt(band, rng.normal(0.0, 8.0, 600)) for _ in range(3)], 1)
    velocity = np.gradient(position, 0.01, axis=0)
    damping = 0.5 * np.sqrt(stiffness)
    slow = 5.0 * np.sin(2.0 * np.pi * 0.3 * time)[:, None] * np.array([1.0, 0.5, -0.5])
    force = -(stiffness * position + damping * velocity) / 1000.0 + slow
    force = force + rng.normal(0.0, 0.02, force.shape)

    def step(state, now):
        state = cooperation.arm_estimate_step(state, *now)
        return state, state.stiffness

    rows = (jnp.asarray(force, jnp.float32), jnp.asarray(position, jnp.float32))
    start = cooperation.start_arm_estimate(20.0, rows[0][0], rows[1][0])
    found = jax.jit(lambda: jax.lax.scan(step, start, rows)[1])()
    assert np.median(found[200:]) == pytest.approx(stiffness, rel=0.25)


def test_without_motion_the_estimate_stays():
    state = cooperation.start_arm_estimate(300.0, jnp.zeros(3), jnp.zeros(3))
    for _ in range(3):
        state = cooperation.arm_estimate_step(state, jnp.array([5.0, -3.0, 1.0]), jnp.zeros(3))
    assert float(state.stiffness) == 300.0


@pytest.mark.parametrize(
    ("stiffness", "damping"), [(100.0, 2.9), (300.0, 8.0), (600.0, 14.7), (1000.0, 22.4)]
)
def test_the_bound_is_where_the_roots_cross(stiffness, damping):
    found = float(cooperation.lowest_stable_damping(jnp.asarray(float(stiffness)), M, LAG))
    assert found == pytest.approx(damping, abs=0.06)
    for factor, stable in ((0.98, False), (1.02, True)):
        d = factor * found
        roots = np.roots([M * LAG, M + d * LAG, d, stiffness])
        assert (roots.real.max() < 0.0) == stable
        assert cooperation.is_stable(stiffness, d, inertia=M, lag=LAG) == stable


def test_low_damping_is_unstable_for_a_stiff_arm_despite_the_arms_damping():
    assert not cooperation.is_stable(1500.0, 10.4, inertia=M, lag=LAG, arm_damping=20.0)
    assert cooperation.is_stable(1500.0, 62.6, inertia=M, lag=LAG)


@pytest.mark.parametrize("stiffness", [50.0, 200.0, 600.0, 1000.0, 1500.0])
def test_the_margin_covers_the_filter_of_the_force(stiffness):
    """Poles of the whole loop at the law's lowest damping, low-pass of the force included and
    the arm's own damping left out."""
    law = cooperation.Admittance()
    low, _ = cooperation.damping_bounds(jnp.asarray(stiffness), cooperation.lowest_damping(), law)
    pole = law.filter_rate
    filters = np.polymul([1.0 / pole, 1.0], [1.0 / pole, 1.0])
    loop = np.polymul([M, float(low), 0.0], np.polymul([LAG, 1.0], filters))
    loop[-1] += stiffness
    assert np.roots(loop).real.max() < 0.0


def test_an_equation_that_is_not_finite_changes_nothing():
    phis, ys = np.array([[1.0, 2.0], [np.nan, 1.0], [1.0, 1.0]]), [3.0, 1.0, np.inf]
    found = rls(phis, ys, 0.98)
    np.testing.assert_array_equal(found[1:], found[:1].repeat(2, axis=0))
