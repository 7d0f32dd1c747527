"""Calibration of the simulated C-arm from a rendered image of the plate."""

import jax
import numpy as np
import pytest

from dartjax import transforms
from dartjax.robot import NavigationError, carm
from dartjax.simulation import _calibration as calibration

MOUNTING = calibration.PlateMounting((0.004, 0.004, 0.01), 0.7, 0.0, 0.0)


def simulated_carm(rng):
    tube = carm.intensifier()
    view = transforms.view_rotation("AP")
    K = calibration.random_intrinsics(rng)
    view = carm.CarmView(K, tube, view, calibration.IMAGE_SIZE)
    return view, jax.jit(carm.image_rays)(view)


@pytest.mark.slow
def test_the_focal_length_is_calibrated_from_the_plate():
    rng = np.random.default_rng(0)
    view, rays = simulated_carm(rng)
    found, T_camera_plate = calibration.calibrate_with_plate(view, rays, MOUNTING, rng)
    assert float(found.carm.K[0, 0]) == pytest.approx(float(view.K[0, 0]), abs=5.0)
    assert float(T_camera_plate.translation()[2]) == calibration.PLATE_DEPTH


@pytest.mark.slow
def test_a_plate_out_of_view_is_an_error_after_two_images():
    rng = np.random.default_rng(0)
    view, rays = simulated_carm(rng)
    away = MOUNTING._replace(shift_mm=1e4)
    with pytest.raises(NavigationError, match="calibration plate"):
        calibration.calibrate_with_plate(view, rays, away, rng)
