"""Shadows against brute force, and the recorded image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import robot
from dartjax.robot import carm
from dartjax.transforms import SE3, SO3

NAIL = carm.locking_nail()
SIZE = (64, 96)


def view():
    K = carm.intrinsics(2480.0, jnp.array([48.0, 32.0]))
    return carm.CarmView(K, carm.flat_panel((48.0, 32.0)), SO3.identity(), SIZE)


def test_chord_of_a_ball(x64):
    rays = carm.image_rays(view(), 1)
    center = jnp.array([[1.0, -2.0, 600.0]])
    pixel = carm.project_points(view().K, SE3.identity(), center)
    image = np.asarray(carm.ball_thickness(rays, center, 1.5, pixel, 24))
    directions = np.concatenate([np.asarray(rays), np.ones((*SIZE, 1))], axis=-1)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    off = np.linalg.norm(np.cross(directions, np.asarray(center)[0]), axis=-1)
    expected = 2.0 * np.sqrt(np.maximum(1.5**2 - off**2, 0.0))
    np.testing.assert_allclose(image, expected, atol=1e-9)
    assert image.max() == pytest.approx(3.0, abs=0.02)


def test_the_middle_of_a_balls_shadow(x64):
    """The offset from the projection of the ball's centre is negligible:
    X Z / (Z^2 - r^2) against X / Z."""
    X, Z, r = 60.0, 620.0, 1.5
    tangent = np.arcsin(r / np.hypot(X, Z))
    middle = np.arctan2(X, Z)
    edges = np.tan([middle - tangent, middle + tangent])
    np.testing.assert_allclose(edges.mean(), X * Z / (Z**2 - r**2), rtol=1e-9)
    assert abs(edges.mean() - X / Z) * 2480.0 < 0.002


def inside_nail(points):
    x, y, z = points.T
    body = (y**2 + z**2 < 36.0) & (x > -160.0) & (x < 18.0)
    holes = [(x - center) ** 2 + y**2 < 2.5**2 for center in (0.0, -30.0)]
    return body & ~holes[0] & ~holes[1]


def test_metal_of_the_nail_is_that_of_brute_force(x64):
    T = SE3.from_rotation_and_translation(
        SO3.from_x_radians(0.12) @ SO3.from_y_radians(-0.1) @ SO3.from_x_radians(np.pi),
        jnp.array([3.0, 1.0, 620.0]),
    )
    rays = carm.image_rays(view(), 1)
    image = np.asarray(carm.nail_thickness(rays, NAIL, T))
    matrix = np.asarray(T.inverse().as_matrix())
    for v, u in ((32, 60), (30, 62), (20, 40), (40, 64), (10, 90), (33, 55)):
        ray = np.append(np.asarray(rays[v, u]), 1.0)
        ray /= np.linalg.norm(ray)
        t = np.linspace(600.0, 650.0, 200_001)
        points = (t[:, None] * ray) @ matrix[:3, :3].T + matrix[:3, 3]
        expected = inside_nail(points).mean() * 50.0
        assert image[v, u] == pytest.approx(expected, abs=2e-3)
    assert image.max() > 11.0


def test_a_hole_seen_straight_on_is_clear():
    T = SE3.from_rotation_and_translation(SO3.from_x_radians(jnp.pi), jnp.array([0.0, 0.0, 620.0]))
    metal = np.asarray(carm.nail_attenuation(carm.image_rays(view(), 1), NAIL, T))
    assert metal[32, 48] == 0.0
    assert metal[32, 65] > 10.0
    # The rims: 2.5 mm at 614 to 626 mm are 9.9 to 10.1 px.
    assert (metal[32] < 0.5).sum() == pytest.approx(20, abs=1)


def test_distortion_is_in_the_rays():
    tube = carm.intensifier((48.0, 32.0), 50.0, pincushion=0.05)
    bent = carm.CarmView(view().K, tube, SO3.identity(), SIZE)
    rays = np.asarray(carm.image_rays(bent, 1))
    pixels = jnp.array([[80.5, 50.5], [10.5, 5.5]])
    expected = carm.to_slopes(view().K, bent.ideal(pixels))
    ours = np.stack([rays[50, 80], rays[5, 10]])
    np.testing.assert_allclose(ours * 2480.0, np.asarray(expected) * 2480.0, atol=0.02)


def test_the_image_has_the_exposures_grey_and_noise():
    anatomy = jnp.full((128, 128), 2.0)
    clear = jnp.zeros((256, 256))
    image = np.asarray(carm.record_image(anatomy, clear, key=jax.random.key(0)))
    exposure = carm.Exposure()
    assert image.mean() == pytest.approx(exposure.grey * (1.0 + exposure.scatter), rel=0.01)
    quanta = exposure.mean_quanta * (1.0 + exposure.scatter)
    blurred = np.sqrt(quanta) / (2.0 * np.sqrt(np.pi) * exposure.blur_px)
    expected = np.hypot(np.hypot(blurred, exposure.electronic) * 0.09, 12.0**-0.5)
    assert image.std() == pytest.approx(expected, rel=0.15)
    opaque = carm.record_image(anatomy, clear + 20.0, key=jax.random.key(0))
    assert float(opaque.max()) < 5.0


def test_invalid_phantoms_are_rejected():
    for make in (
        lambda: carm.drill_guide(9.0),
        lambda: carm.locking_nail(5.0, 5.0),
        lambda: carm.locking_nail(ends=(-25.0, 18.0)),
        lambda: carm.calibration_phantom(5.0),
    ):
        with pytest.raises(robot.BadParameter):
            make()


def test_no_rotation_or_reflection_maps_the_target_onto_itself():
    guide = carm.drill_guide()
    balls = np.asarray(guide.balls)
    assert balls.shape == (28, 3)
    assert int(np.sum(guide.plane)) == 14
    middle = balls[:, :2].mean(axis=0)
    best = 0
    for flip in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
        for dx in np.arange(-24, 25, 8.0):
            for dy in np.arange(-24, 25, 8.0):
                if flip == (1, 1) and dx == dy == 0:
                    continue
                lattice = np.round((balls[:, :2] - middle) * flip / 8.0) * 8.0
                moved = np.column_stack([lattice + np.array([dx, dy]), balls[:, 2]])
                still = np.column_stack(
                    [np.round((balls[:, :2] - middle) / 8.0) * 8.0, balls[:, 2]]
                )
                same = (np.abs(moved[:, None] - still[None]).max(-1) < 1.0).any(1).sum()
                best = max(best, same)
    assert best <= 0.7 * 28
