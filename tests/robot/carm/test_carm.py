"""Calibration of the C-arm and maps between planes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import StatusCode, carm
from dartjax.transforms import SE3, SO3

calibrate = jax.jit(carm.calibrate_carm)


def phantom_view():
    phantom = carm.calibration_phantom()
    points = np.concatenate([np.asarray(phantom.plate).reshape(-1, 3), np.asarray(phantom.upper)])
    keep = np.hypot(points[:, 0], points[:, 1]) < 100.0
    K = np.array([[2476.0, 0.0, 381.0], [0.0, 2476.0, 291.0], [0.0, 0.0, 1.0]])
    turn = SO3.exp(jnp.array([0.004, -0.003, 0.01]))
    T = SE3.from_rotation_and_translation(turn, jnp.array([1.0, -2.0, 985.0]))
    return jnp.asarray(points[keep], jnp.float64), jnp.asarray(K), T


def test_calibration_recovers_the_camera(x64):
    points, K, T = phantom_view()
    pixels = carm.project_points(K, T, points)
    found, status = calibrate(pixels, points, jnp.ones(len(points), bool))
    assert int(status) == StatusCode.OK
    np.testing.assert_allclose(found.K, K, atol=1e-4)
    np.testing.assert_allclose(found.T_camera_phantom.as_matrix(), T.as_matrix(), atol=1e-4)


@pytest.mark.slow
def test_the_covariance_is_that_of_repeated_calibrations(x64):
    points, K, T = phantom_view()
    pixels = carm.project_points(K, T, points)
    noise = 0.1 * np.random.default_rng(0).normal(size=(60, *pixels.shape))
    valid = jnp.ones(len(points), bool)
    found, _ = jax.jit(jax.vmap(lambda n: carm.calibrate_carm(pixels + n, points, valid)))(noise)
    scatter = np.std(np.asarray(found.K)[:, [0, 0, 1], [0, 2, 2]], axis=0)
    stated = np.mean(np.asarray(jax.vmap(lambda c: c.sigma)(found)), axis=0)[:3]
    np.testing.assert_allclose(scatter, stated, rtol=0.35)


def test_sixty_per_cent_of_the_balls_are_enough_and_one_plane_is_not(x64):
    points, K, T = phantom_view()
    pixels = carm.project_points(K, T, points)
    some = jnp.asarray(np.random.default_rng(1).random(len(points)) < 0.6)
    found, status = calibrate(pixels, points, some)
    assert int(status) == StatusCode.OK
    np.testing.assert_allclose(found.K, K, atol=1e-3)
    flat = points[:, 2] == 0.0
    assert int(calibrate(pixels, points, flat)[1]) == StatusCode.DEGENERATE_GEOMETRY
    few = jnp.arange(len(points)) < 8
    assert int(calibrate(pixels, points, few)[1]) == StatusCode.TOO_FEW_FIDUCIALS


def test_homography_is_that_of_opencv():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    source = rng.uniform(0, 500, (30, 2))
    true = np.array([[1.1, 0.1, 20.0], [-0.05, 0.9, -10.0], [1e-4, -2e-4, 1.0]])
    mapped = np.column_stack([source, np.ones(30)]) @ true.T
    target = mapped[:, :2] / mapped[:, 2:] + rng.normal(0, 0.5, (30, 2))
    with jax.enable_x64(True):
        a, b, valid = jnp.asarray(source), jnp.asarray(target), jnp.ones(30, bool)
        start, status = carm.homography_dlt(a, b, valid)
        found, rms = carm.homography_refine(start, a, b, valid)
    expected, _ = cv2.findHomography(source, target, 0)
    assert int(status) == StatusCode.OK
    assert 0.3 < float(rms) < 1.0
    corners = np.array([[0.0, 0.0], [500.0, 0.0], [500.0, 500.0], [0.0, 500.0]])
    ours = np.asarray(carm.apply_homography(found, jnp.asarray(corners)))
    theirs = cv2.perspectiveTransform(corners[None], expected)[0]
    np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_points_on_a_line_give_no_homography():
    line = jnp.stack([jnp.arange(6.0), 2.0 * jnp.arange(6.0)], axis=1)
    _, status = carm.homography_dlt(line, line, jnp.ones(6, bool))
    assert int(status) == StatusCode.DEGENERATE_GEOMETRY
    _, status = carm.homography_dlt(line, line, jnp.arange(6) < 3)
    assert int(status) == StatusCode.TOO_FEW_FIDUCIALS


@pytest.mark.parametrize("fault", ["mirrored", "exchanged"])
def test_a_mirrored_image_is_refused(x64, fault):
    """Its exact solution has the phantom behind the source."""
    points, K, T = phantom_view()
    pixels = carm.project_points(K, T, points)
    wrong = pixels[:, ::-1] if fault == "exchanged" else pixels * jnp.array([[-1.0, 1.0]])
    found, status = calibrate(wrong, points, jnp.ones(len(points), bool))
    assert float(found.rms_px) < 1e-6
    assert int(status) == StatusCode.CORRESPONDENCE_FAILED


def test_points_that_are_not_valid_may_be_nan(x64):
    points, K, T = phantom_view()
    pixels = carm.project_points(K, T, points)
    valid = jnp.arange(len(points)) % 4 > 0
    found, status = calibrate(
        jnp.where(valid[:, None], pixels, jnp.nan),
        jnp.where(valid[:, None], points, jnp.inf),
        valid,
    )
    assert int(status) == StatusCode.OK
    np.testing.assert_allclose(found.K, K, atol=1e-3)
