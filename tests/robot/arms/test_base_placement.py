"""Base placement: motion of the base, the gradient of reachability, and the optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot.arms import (
    PlacementOptions,
    guide_tool,
    moved_base,
    place_base,
    reachability,
    spine_hybrid,
    stack_paths,
)
from tests.gradients import assert_gradient
from tests.robot.arms.test_follow import approach_of, body, pedicle, prone


def test_the_base_moves_and_the_patient_stays(x64):
    """A base shifted by +x sees the patient at -x; one turned by +90 degrees about z sees
    what was ahead (x) at its right (-y)."""
    point = jnp.array([1.0, 2.0, 3.0])
    start = prone()
    before = start.apply(point)
    shifted = moved_base(start, jnp.array([10.0, 0.0, 0.0, 0.0, 0.0, 0.0]), jnp.zeros(3))
    np.testing.assert_allclose(shifted.apply(point), before - jnp.array([10.0, 0, 0]), atol=1e-9)
    turn = jnp.array([0.0, 0.0, 0.0, 0.0, 0.0, jnp.pi / 2])
    turned = moved_base(start, turn, jnp.zeros(3)).apply(point)
    np.testing.assert_allclose(turned, [before[1], -before[0], before[2]], atol=1e-9)
    pivot = moved_base(start, turn, before).apply(point)
    np.testing.assert_allclose(pivot, before, atol=1e-9)


@pytest.mark.parametrize(
    "place",
    [
        {"y": 800.0, "z": 100.0},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"y": 1100.0}, marks=pytest.mark.slow),
    ],
)
def test_gradient_of_reachability_in_the_placement(x64, place):
    robot, start, path = spine_hybrid(), prone(**place), pedicle(1)

    def reach(move):
        moved = moved_base(start, move, start.translation())
        return reachability(path, moved, robot, body=body, tool=guide_tool())

    assert_gradient(reach, jnp.array([3.0, -2.0, 1.0, 0.02, -0.03, 0.05]), rtol=1e-4)


def test_reachability_is_at_most_the_smallest_margin(x64):
    robot = spine_hybrid()
    approach, _ = approach_of(pedicle(1), prone(), robot)
    soft = jax.jit(lambda T: reachability(pedicle(1), T, robot, body=body, tool=guide_tool()))
    soft = float(soft(prone()))
    least = min(float(approach.margin), float(approach.clearance) / 50.0)
    assert least - 0.06 < soft <= least + 1e-9


@pytest.mark.slow
def test_a_base_out_of_reach_is_moved_into_reach(x64):
    """From 400 mm away both pedicles come into reach, and only freed directions move."""
    robot, paths = spine_hybrid(), stack_paths([pedicle(-1), pedicle(1)])
    options = PlacementOptions(num_steps=150)
    found = jax.jit(
        lambda start: place_base(paths, start, robot, body=body, tool=guide_tool(), options=options)
    )(prone(x=900.0, y=750.0))
    assert (found.margin > 0.1).all()
    assert float(found.history[-1]) < 0.1 * float(found.history[0])
    np.testing.assert_allclose(found.move[3:5], 0.0, atol=1e-12)
