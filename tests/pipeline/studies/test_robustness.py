"""Scenes of the robustness curves: camera errors, and residuals after refinement."""

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, simulation, transforms
from dartjax.pipeline import AS_GIVEN, REFINED, ROBUSTNESS_VALUES, RobustnessScene, only_levels
from dartjax.pipeline.studies._robustness import _residual
from dartjax.pipeline.studies._robustness_scenes import RobustnessSetup, second_view_motions
from tests.pipeline.answers import task


@pytest.fixture
def setup():
    """Without a CT: only its geometry is used."""
    made = RobustnessSetup.__new__(RobustnessSetup)
    made.isocenter = np.array([5.0, -20.0, 300.0])
    made._turn_axis, made._shift_axis = np.array([0.6, 0.0, 0.8]), np.array([0.0, 1.0, 0.0])
    return made


def test_a_wrong_camera_has_the_requested_error(setup):
    pivot = jnp.asarray(setup.isocenter, jnp.float32)
    turned, shifted = setup.motion(3.0, 0.0), setup.motion(0.0, 10.0)
    angle = jnp.rad2deg(transforms.rotation_angle(turned.rotation()))
    assert float(angle) == pytest.approx(3.0, abs=1e-3)
    np.testing.assert_allclose(turned.apply(pivot), pivot, atol=1e-3)
    assert float(jnp.linalg.norm(shifted.apply(pivot) - pivot)) == pytest.approx(10.0, abs=1e-3)
    np.testing.assert_allclose(shifted.rotation().as_matrix(), np.eye(3), atol=1e-6)


def test_residuals_of_refinement_are_relative_to_the_true_camera(setup):
    wrong = setup.motion(2.0, 6.0)
    own = RobustnessScene("camera_angle", 2.0, REFINED, 0, [], wrong, setup.isocenter)
    nothing = _residual(own, transforms.SE3.identity((2,)), "")
    assert nothing.angle_left_deg == pytest.approx(2.0, abs=1e-2)
    assert nothing.shift_left_mm == pytest.approx(6.0, abs=1e-2)
    undone = _residual(own, second_view_motions(wrong.inverse()), "refined")
    assert undone.angle_left_deg < 0.05 and undone.shift_left_mm < 0.01
    alone = _residual(own, transforms.SE3.identity((1,)), "")  # of one view
    assert np.isfinite(alone.angle_left_deg)


def test_only_the_requested_levels_are_fitted():
    tasks = [task("T8"), task("T9")]
    own = RobustnessScene("views", 2, AS_GIVEN, 0, tasks, transforms.SE3.identity(), np.zeros(3))
    assert [one.level for one in only_levels([own], ["T9"])[0].tasks] == ["T9"]


def test_views_at_an_angle_are_that_angle_apart(setup):
    setup._primary, setup._setup = 0.7, simulation.CarmSetup()
    for angle in ROBUSTNESS_VALUES["angles"]:
        first, second = setup._level_view(0.0), setup._level_view(angle)
        assert simulation.pair_angles_deg([first, second])[0] == pytest.approx(angle, abs=0.05)
        assert isinstance(first, camera.Camera)
