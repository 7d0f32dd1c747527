"""The camera in asymmetric golden cases: orientation of the patient in each view."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, transforms
from dartjax.transforms import SE3

ISOCENTER = jnp.array([5.0, -7.0, 11.0])
# Points 10 mm to the right, front and head of the isocentre.
RIGHT, ANTERIOR, SUPERIOR = (np.asarray(ISOCENTER) + 10.0 * np.eye(3)[i] for i in range(3))
MAGNIFICATION = 1020.0 / 530.0
SHIFT = 10.0 * MAGNIFICATION / 0.388  # px on the detector for 10 mm at the isocentre


def oblique(image_size=(768, 1024), spacing=(0.388, 0.4)):
    return camera.from_carm(
        transforms.carm_rotation(0.5, 0.2, 0.1),
        ISOCENTER,
        pixel_spacing=spacing,
        image_size=image_size,
    )


def random_points(n=20, seed=0):
    return ISOCENTER[None] + 40.0 * jax.random.normal(jax.random.key(seed), (n, 3))


@pytest.mark.parametrize(
    ("view", "right", "anterior", "superior"),
    [
        ("AP", (-SHIFT, 0), (0, 0), (0, -SHIFT)),  # patient's right on the left of the image
        ("PA", (SHIFT, 0), (0, 0), (0, -SHIFT)),
        ("LAT_L", (0, 0), (SHIFT, 0), (0, -SHIFT)),
        ("LAT_R", (0, 0), (-SHIFT, 0), (0, -SHIFT)),
    ],
)
def test_golden_projections(view, right, anterior, superior):
    cam = camera.from_carm(transforms.view_rotation(view), ISOCENTER)
    pixels = camera.project(cam, jnp.stack([ISOCENTER, RIGHT, ANTERIOR, SUPERIOR]))
    expected = np.array([384.0, 384.0]) + np.array([(0, 0), right, anterior, superior])
    # Single precision of 384 px is 3e-5; the two-step projection loses about ten of those.
    np.testing.assert_allclose(pixels, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("view", "nearest_the_source"),
    [("AP", ANTERIOR), ("PA", -ANTERIOR), ("LAT_L", RIGHT), ("LAT_R", -RIGHT)],
)
def test_beam_enters_on_the_named_side(view, nearest_the_source):
    cam = camera.from_carm(transforms.view_rotation(view), jnp.zeros(3))
    inward = -np.asarray(cam.source) / np.linalg.norm(cam.source)
    np.testing.assert_allclose(inward, cam.beam, atol=1e-6)
    side = nearest_the_source - np.sign(nearest_the_source.sum()) * np.asarray(ISOCENTER)
    assert np.dot(side, cam.beam) == pytest.approx(-10.0, abs=1e-4)


def test_source_and_distances():
    cam = oblique()
    beam = np.asarray(cam.beam)
    np.testing.assert_allclose(cam.source, ISOCENTER - 530.0 * beam, atol=1e-3)
    assert float(camera.depth(cam, ISOCENTER[None])[0]) == pytest.approx(530.0, abs=1e-3)
    np.testing.assert_allclose(cam.pixel_spacing, [0.388, 0.4], rtol=1e-6)


def test_pixel_centres_are_at_half():
    cam = oblique(image_size=(4, 6))
    centres = np.asarray(camera.pixel_centers(cam))
    assert centres.shape == (4, 6, 2)
    np.testing.assert_array_equal(centres[0, 0], [0.5, 0.5])
    np.testing.assert_array_equal(centres[3, 5], [5.5, 3.5])
    np.testing.assert_array_equal(centres.mean((0, 1)), cam.principal_point)


def test_intrinsics_project_like_the_camera():
    cam = oblique()
    points = random_points()
    in_camera = transforms.apply(cam.camera_from_world, points)
    homogeneous = np.asarray(in_camera @ cam.intrinsics.T)
    np.testing.assert_allclose(
        camera.project(cam, points), homogeneous[:, :2] / homogeneous[:, 2:], rtol=1e-5
    )
    again = camera.from_intrinsics(cam.intrinsics, cam.camera_from_world, cam.sdd, cam.image_size)
    np.testing.assert_array_equal(camera.project(again, points), camera.project(cam, points))


def test_back_project_inverts_project():
    cam, points = oblique(), random_points()
    again = camera.back_project(cam, camera.project(cam, points), camera.depth(cam, points))
    np.testing.assert_allclose(again, points, atol=2e-3)


def test_rays_meet_the_points_they_show():
    cam = oblique(image_size=(6, 8))
    rays = camera.ray_directions(cam)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1.0, atol=1e-6)
    points = cam.source[None] + 700.0 * rays.reshape(-1, 3)
    centres = camera.pixel_centers(cam).reshape(-1, 2)
    np.testing.assert_allclose(camera.project(cam, points), centres, atol=1e-3)


@pytest.mark.parametrize("top_left", [(0.0, 0.0), (100.0, 50.0), (-20.5, 10.25), (700.0, 600.0)])
def test_crop_only_shifts_pixels(top_left):
    cam, points = oblique(), random_points()
    cropped = camera.crop(cam, jnp.array(top_left), (128, 96))
    assert cropped.image_size == (128, 96)
    expected = camera.project(cam, points) - jnp.array(top_left)[None]
    np.testing.assert_allclose(camera.project(cropped, points), expected, atol=1e-3)


@pytest.mark.parametrize("image_size", [(384, 512), (1536, 2048), (100, 700)])
def test_resize_scales_pixel_edges(image_size):
    cam, points = oblique(), random_points()
    resized = camera.resize(cam, image_size)
    scale = np.array([image_size[1] / 1024, image_size[0] / 768])
    np.testing.assert_allclose(
        camera.project(resized, points), camera.project(cam, points) * scale[None], rtol=1e-5
    )
    before, after = (
        np.asarray(c.pixel_spacing) * np.array(c.image_size[::-1]) for c in (cam, resized)
    )
    np.testing.assert_allclose(after, before, rtol=1e-5)  # the detector keeps its size in mm


def test_region_around_centres_the_vertebra_at_its_width():
    cam = oblique()
    center = ISOCENTER + jnp.array([30.0, -20.0, 15.0])
    region = camera.region_around(cam, center, width_mm=80.0, num_pixels=64)
    np.testing.assert_allclose(camera.project(region, center[None]), [[32.0, 32.0]], atol=1e-3)
    u_axis = cam.world_from_camera.rotation().as_matrix()[:, 0]
    edge = center + 40.0 * u_axis  # half the width, at the same depth
    np.testing.assert_allclose(camera.project(region, edge[None]), [[64.0, 32.0]], atol=1e-3)


def test_region_around_is_the_same_view():
    cam = oblique()
    region = camera.region_around(cam, ISOCENTER, width_mm=90.0, num_pixels=96)
    points = random_points()
    full, local = camera.project(cam, points), camera.project(region, points)
    scale = np.asarray(region.focal_length / cam.focal_length)
    offset = np.asarray(region.principal_point) - scale * np.asarray(cam.principal_point)
    np.testing.assert_allclose(local, full * scale[None] + offset[None], atol=2e-3)
    np.testing.assert_array_equal(region.source, cam.source)


def test_point_behind_the_source_has_negative_depth():
    cam = oblique()
    behind = cam.source - 10.0 * cam.beam
    assert float(camera.depth(cam, behind[None])[0]) == pytest.approx(-10.0, abs=1e-3)


def test_projection_is_differentiable_at_the_identity_pose():
    def error(pose):
        cam = dataclasses.replace(oblique(), camera_from_world=pose)
        return jnp.sum(camera.project(cam, jnp.array([[3.0, 4.0, 500.0]])) ** 2)

    gradient = jax.grad(error)(SE3.identity())
    assert np.isfinite(np.asarray(gradient.parameters())).all()
    assert np.abs(np.asarray(gradient.parameters())).max() > 0


def test_reprojection_is_measured_in_mm_at_the_point():
    """A point displaced across the beam by x mm has an error of x mm at any depth."""
    view = camera.from_carm(transforms.carm_rotation(0.4, 0.1), jnp.array([5.0, 2.0, 50.0]))
    axes = view.world_from_camera.rotation().as_matrix()
    for along in (-60.0, 0.0, 80.0):
        point = jnp.array([5.0, 2.0, 50.0]) + along * axes[:, 2]
        moved = point + 3.0 * axes[:, 0] - 2.0 * axes[:, 1]
        error = camera.reprojection_mm(view, moved[None], camera.project(view, point[None]))
        np.testing.assert_allclose(error, [[3.0, -2.0]], atol=2e-3)
