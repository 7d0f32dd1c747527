"""Grades of breaches whose depth is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.observations import NeedlePath
from dartjax.planning import DistanceField, PedicleGrade, breach_mm, pedicle_grade
from tests.gradients import assert_gradient


@pytest.fixture(scope="module")
def slab():
    """Bone between x = -6 and x = 6."""
    points = np.indices((41, 7, 61)).reshape(3, -1).T - np.array([20.0, 3.0, 10.0])
    affine = np.eye(4)
    affine[:3, 3] = [-20.0, -3.0, -10.0]
    values = (np.abs(points[:, 0]) - 6.0).reshape(41, 7, 61)
    return DistanceField(jnp.asarray(values, jnp.float32), jnp.asarray(affine, jnp.float32))


def along_z(x, radius):
    ends = jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 40.0]]).at[:, 0].set(x)
    return NeedlePath(ends[0], ends[1], jnp.asarray(radius))


@pytest.mark.parametrize(
    ("x", "radius", "breach"),
    [(0.0, 2.5, 0.0), (3.4, 2.5, 0.0), (4.5, 2.5, 1.0), (4.5, 1.0, 0.0), (-7.0, 2.5, 3.5)],
)
def test_the_breach_is_the_part_beyond_the_wall(slab, x, radius, breach):
    assert float(breach_mm(along_z(x, radius), slab)) == pytest.approx(breach, abs=1e-4)


def test_gradient_of_the_breach(slab, x64):
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), slab)
    assert_gradient(lambda x: breach_mm(along_z(x, 2.5), exact), 5.13)


def test_borders_of_the_grades():
    breach = jnp.array([0.0, 1e-3, 1.999, 2.0, 4.0, 4.001, 5.999, 6.0])
    four, five = jax.jit(pedicle_grade)(breach), pedicle_grade(breach, "five")
    assert four.tolist() == [1, 2, 2, 3, 3, 4, 4, 4]
    assert five.tolist() == [1, 2, 2, 3, 4, 4, 4, 5]
    assert PedicleGrade(int(four[0])) is PedicleGrade.I


def test_a_nan_or_negative_breach_has_grade_0():
    assert pedicle_grade(jnp.array([jnp.nan, -1.0])).tolist() == [0, 0]
