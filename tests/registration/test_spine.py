"""Order of the vertebrae: distances, and poses predicted from neighbours."""

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, transforms
from dartjax.registration import _spine as spine


@pytest.fixture(scope="module")
def models():
    return {level: data.load_shape_model(level) for level in ("T8", "T9", "T10", "T12", "L1")}


def test_levels_are_a_body_and_a_disc_apart(models):
    along = spine.positions_mm(models)
    assert list(along) == ["T8", "T9", "T10", "T12", "L1"]
    assert 20.0 < along["T9"] - along["T8"] < 30.0
    assert 27.0 < along["L1"] - along["T12"] < 38.0
    # Two steps, T11 counted; bodies grow toward the feet.
    assert 2.0 < (along["T12"] - along["T10"]) / (along["T10"] - along["T9"]) < 2.4


def test_a_level_that_is_not_given_is_counted(models):
    fewer = {level: model for level, model in models.items() if level != "T9"}
    with_it, without = spine.positions_mm(models), spine.positions_mm(fewer)
    apart = [along["T10"] - along["T8"] for along in (with_it, without)]
    assert apart[0] == pytest.approx(apart[1], abs=1.0)


def at(height, tilt):
    turn = transforms.SO3.from_x_radians(jnp.asarray(tilt))
    return transforms.SE3.from_rotation_and_translation(turn, jnp.array([0.0, 0.0, height]))


def test_expected_between_and_beyond_neighbours():
    along = {"T8": 0.0, "T9": 25.0, "T10": 50.0}
    between = spine.expected_pose("T9", along, {"T8": at(100.0, 0.0), "T10": at(50.0, 0.2)})
    assert bool(between.known)
    turn = between.pose.rotation().log()
    assert np.allclose(turn, [0.1, 0.0, 0.0], atol=1e-5)
    # Half of T8 moved 25 mm down, half of T10 moved 25 mm up along its own tilted axis.
    upward = 0.5 * 25.0 * np.array([0.0, -np.sin(0.2), np.cos(0.2)])
    expected = 0.5 * np.array([0.0, 0.0, 75.0]) + 0.5 * np.array([0.0, 0.0, 50.0]) + upward
    assert np.allclose(between.pose.translation(), expected, atol=1e-4)
    beyond = spine.expected_pose("T10", along, {"T8": at(100.0, 0.0)})
    assert np.allclose(beyond.pose.translation(), [0.0, 0.0, 50.0], atol=1e-4)


def test_a_distant_neighbour_is_ignored():
    along = {"T8": 0.0, "T11": 75.0}
    assert not bool(spine.expected_pose("T11", along, {"T8": at(100.0, 0.0)}).known)
    assert not bool(spine.expected_pose("T8", along, {}).known)
