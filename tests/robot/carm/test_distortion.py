"""Distortion of an intensifier and its corrections."""

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import StatusCode, carm
from dartjax.transforms import SO3

PITCH = 25.0  # px, 10 mm


def plate(tube, *, noise_px=0.0, size=25, rotation=None):
    """Ideal and recorded nodes of a plate, and which lie in the field."""
    rotation = SO3.identity() if rotation is None else rotation
    steps = PITCH * (np.arange(size) - size // 2)
    ideal = np.stack(np.meshgrid(384.0 + steps, 288.0 + steps), axis=-1)
    real = np.asarray(carm.distort_points(tube, rotation, jnp.asarray(ideal.reshape(-1, 2))))
    real = real.reshape(ideal.shape) + noise_px * np.random.default_rng(0).normal(size=ideal.shape)
    return ideal, real, np.linalg.norm(ideal - [384, 288], axis=-1) < 288.0


def field_points(count=500):
    rng = np.random.default_rng(1)
    angle, radius = rng.uniform(0, 2 * np.pi, count), 255.0 * np.sqrt(rng.random(count))
    points = np.stack([384 + radius * np.cos(angle), 288 + radius * np.sin(angle)], axis=1)
    return jnp.asarray(points)


def test_undistortion_inverts_distortion(x64):
    tube = carm.intensifier(bump=0.03)
    rotation = SO3.exp(jnp.array([0.3, -0.7, 1.1]))
    points = field_points()
    there = carm.distort_points(tube, rotation, points)
    back = carm.undistort_points(tube, rotation, there)
    assert float(jnp.max(jnp.linalg.norm(there - points, axis=1))) > 5.0
    np.testing.assert_allclose(back, points, atol=2e-3)


def test_pincushion_moves_outward_and_the_field_turns_by_its_component_along_the_beam(x64):
    still = dict(pincushion=0.0, sigmoid=0.0, earth_field=(0.0, 0.0, 0.0))
    right = jnp.array([[384.0 + 288.0, 288.0]])
    outward = carm.distort_points(
        carm.intensifier(**{**still, "pincushion": 0.03}), SO3.identity(), right
    )
    np.testing.assert_allclose(outward[0], [384.0 + 288.0 * 1.03, 288.0], atol=1e-9)
    # A field along the beam turns x toward y (down); seen from the other side the other way.
    tube = carm.intensifier(**{**still, "earth_field": (0.0, 0.0, 0.01)})
    down = carm.distort_points(tube, SO3.identity(), right)
    up = carm.distort_points(tube, SO3.from_x_radians(jnp.pi), right)
    assert float(down[0, 1]) > 288.0 + 2.0
    assert float(up[0, 1]) < 288.0 - 2.0


def test_a_flat_panel_has_no_distortion():
    points = jnp.array([[10.0, 20.0], [700.0, 500.0]])
    moved = carm.distort_points(carm.flat_panel(), SO3.from_y_radians(0.5), points)
    np.testing.assert_allclose(moved, points, atol=1e-4)


@pytest.mark.slow
def test_local_correction_follows_a_bump_that_a_polynomial_cannot(x64):
    tube = carm.intensifier(bump=0.06, bump_width=0.12)
    ideal, real, valid = plate(tube, noise_px=0.05)
    lattice, status = carm.fit_local(jnp.asarray(real), jnp.asarray(valid))
    assert int(status) == StatusCode.OK
    points = field_points()
    recorded = carm.distort_points(tube, SO3.identity(), points)
    local = np.asarray(carm.ideal_of_real(lattice, recorded))
    polynomial = carm.fit_global(
        jnp.asarray(real.reshape(-1, 2)),
        jnp.asarray(ideal.reshape(-1, 2)),
        jnp.asarray(valid.reshape(-1)),
        5,
    )
    smooth = np.asarray(carm.ideal_of_real_global(polynomial, recorded))
    local_mm, smooth_mm = (0.4 * _residual(found, np.asarray(points)) for found in (local, smooth))
    assert local_mm.mean() < 0.04
    assert local_mm.max() < 0.15
    assert smooth_mm.max() > 2.5 * local_mm.max()


def _residual(found, true):
    """Distances up to the affine map of the plate, which its middle fixes only roughly."""
    known = np.isfinite(found[:, 0])
    assert known.mean() > 0.97
    design = np.column_stack([true, np.ones(len(true))])[known]
    affine, *_ = np.linalg.lstsq(design, found[known], rcond=None)
    return np.linalg.norm(design @ affine - found[known], axis=1)


@pytest.mark.slow
def test_a_missing_node_is_filled_and_outside_is_unknown(x64):
    tube = carm.intensifier()
    _, real, valid = plate(tube)
    whole, _ = carm.fit_local(jnp.asarray(real), jnp.asarray(valid))
    valid[15, 16] = False
    holed, status = carm.fit_local(jnp.asarray(real), jnp.asarray(valid))
    near = jnp.asarray(real[15, 16])[None] + 3.0
    assert int(status) == StatusCode.OK
    there, expected = (carm.ideal_of_real(fit, near) for fit in (holed, whole))
    np.testing.assert_allclose(there, expected, atol=0.1)
    assert not np.isfinite(np.asarray(carm.ideal_of_real(whole, jnp.array([[5.0, 5.0]])))).any()


def test_too_few_nodes_and_a_folded_cell_have_a_status():
    _, real, valid = plate(carm.intensifier())
    none = np.zeros_like(valid)
    assert int(carm.fit_local(jnp.asarray(real), jnp.asarray(none))[1]) == (
        StatusCode.TOO_FEW_FIDUCIALS
    )
    real[8, 8] = real[8, 10]
    _, status = carm.fit_local(jnp.asarray(real), jnp.asarray(valid))
    assert int(status) == StatusCode.DEGENERATE_GEOMETRY


def test_undistorted_image_is_straight():
    tube = carm.intensifier(pincushion=0.05, sigmoid=0.0, earth_field=(0.0, 0.0, 0.0))
    _, real, valid = plate(tube)
    lattice, _ = carm.fit_local(jnp.asarray(real, jnp.float32), jnp.asarray(valid))
    u, v = np.meshgrid(np.arange(768) + 0.5, np.arange(576) + 0.5)
    grid = jnp.asarray(np.stack([u.ravel(), v.ravel()], axis=1), jnp.float32)
    column = np.asarray(carm.undistort_points(tube, SO3.identity(), grid))[:, 0].reshape(576, 768)
    image = jnp.asarray(np.exp(-0.5 * ((column - 500.0) / 2.0) ** 2), jnp.float32)
    straight = np.asarray(carm.undistort_image(lattice, image))
    peaks = [straight[row].argmax() + 0.5 for row in (150, 288, 420)]
    assert np.ptp(peaks) <= 1.0
    assert np.ptp([np.asarray(image)[row].argmax() for row in (150, 288, 420)]) > 1.0


@pytest.mark.parametrize("bad", [(0, 0), (24, 24)])
def test_distortion_depends_on_the_pose(bad, x64):
    tube = carm.intensifier()
    ideal, _, _ = plate(tube)
    point = jnp.asarray(ideal[bad])[None]
    moved = [
        carm.distort_points(tube, turn, point) for turn in (SO3.identity(), SO3.from_x_radians(1.0))
    ]
    assert float(jnp.linalg.norm(moved[0] - moved[1])) > 1.0


def test_a_detected_node_that_is_nan_has_a_status():
    _, real, valid = plate(carm.intensifier())
    real[10, 12] = np.nan
    assert int(carm.fit_local(jnp.asarray(real), jnp.asarray(valid))[1]) != StatusCode.OK
    valid[10, 12] = False
    assert int(carm.fit_local(jnp.asarray(real), jnp.asarray(valid))[1]) == StatusCode.OK


def test_control_points_that_are_not_valid_may_be_nan():
    ideal, real, valid = plate(carm.intensifier())
    real = np.where(valid[..., None], real, np.nan)
    flat = [jnp.asarray(each.reshape(-1, 2)) for each in (real, ideal)]
    fit = carm.fit_global(*flat, jnp.asarray(valid.ravel()), 5)
    found = np.asarray(carm.ideal_of_real_global(fit, flat[0]))[valid.ravel()]
    assert np.abs(found - ideal.reshape(-1, 2)[valid.ravel()]).max() < 0.3
