"""Sugeno rules against interpolation on their grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from dartjax.robot import cooperation
from dartjax.robot.cooperation import SugenoRules

ROWS, COLUMNS = np.array([0.0, 0.3, 1.0]), np.array([-1.0, 0.5, 2.0])
TABLE = np.array([[1.0, 0.4, 0.2], [0.7, 0.5, 0.1], [0.9, 0.3, 0.0]])
RULES = SugenoRules(*(jnp.asarray(part, jnp.float32) for part in (TABLE, ROWS, COLUMNS)))


def test_the_surface_is_bilinear_between_the_apexes():
    oracle = RegularGridInterpolator((ROWS, COLUMNS), TABLE)
    inputs = np.random.default_rng(0).uniform([0.0, -1.0], [1.0, 2.0], (200, 2))
    found = jax.vmap(RULES)(*jnp.asarray(inputs, jnp.float32).T)
    np.testing.assert_allclose(found, oracle(inputs), atol=1e-6)


@pytest.mark.parametrize("value", [-5.0, 0.0, 0.1, 0.3, 0.99, 1.0, 7.0])
def test_memberships_add_up_to_one(value):
    found = cooperation.memberships(jnp.asarray(value), RULES.row_apexes)
    assert float(found.sum()) == pytest.approx(1.0) and (found >= 0.0).all()
    clipped = np.clip(value, 0.0, 1.0)
    expected = [np.interp(clipped, ROWS, own) for own in np.eye(3)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_beyond_the_outer_apexes_the_answer_stays():
    assert float(RULES(jnp.asarray(9.0), jnp.asarray(-9.0))) == pytest.approx(0.9)


def test_classical_rules_fall_with_force_and_speed():
    rules = cooperation.classical_rules().rules
    grid = jnp.linspace(0.0, 1.0, 21)
    surface = np.asarray(jax.vmap(jax.vmap(rules, (None, 0)), (0, None))(grid, grid))
    assert (np.diff(surface, axis=0) < 1e-6).all() and (np.diff(surface, axis=1) < 1e-6).all()
    assert surface[0, 0] == pytest.approx(1.0) and surface[-1, -1] == pytest.approx(0.0)


def test_nan_in_nan_out():
    assert np.isnan(RULES(jnp.asarray(jnp.nan), jnp.asarray(0.0)))
