"""Volumes, resampling of radiographs, and blur."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from dartjax import camera, transforms
from dartjax.image import Radiograph, Volume, gaussian_blur, resample
from tests.gradients import assert_gradient


def view(image_size=(200, 240)):
    return camera.from_carm(
        transforms.carm_rotation(0.4, 0.1), jnp.zeros(3), pixel_spacing=1.5, image_size=image_size
    )


def spot_image(cam, point, sigma_px):
    """A Gaussian spot at the projection of the point."""
    center = camera.project(cam, point[None])[0]
    offset = camera.pixel_centers(cam) - center[None, None]
    return jnp.exp(-0.5 * jnp.sum(offset**2, -1) / sigma_px**2)


def centre_of_mass(image):
    row, column = ndimage.center_of_mass(np.asarray(image))
    return np.array([column + 0.5, row + 0.5])


def test_volume_center():
    affine = jnp.array([[0.0, -2, 0, 10], [3, 0, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
    volume = Volume(jnp.zeros((5, 7, 9)), affine)
    np.testing.assert_allclose(volume.center, [10 - 2 * 3, 20 + 3 * 2, 30 + 4 * 4])


@pytest.mark.parametrize("point", [(0.0, 0.0, 0.0), (12.0, -8.0, 20.0)])
@pytest.mark.parametrize("num_pixels", [64, 150])
def test_resample_keeps_a_point_in_its_place(point, num_pixels):
    cam, point = view(), jnp.array(point)
    radiograph = Radiograph(spot_image(cam, point, 5.0), cam)
    region = camera.region_around(cam, jnp.zeros(3), width_mm=120.0, num_pixels=num_pixels)
    shown = resample(radiograph, region)
    assert shown.image.shape == region.image_size
    expected = camera.project(region, point[None])[0]
    np.testing.assert_allclose(centre_of_mass(shown.image), expected, atol=0.05)


def test_resample_to_a_whole_pixel_crop_copies():
    cam = view()
    image = jax.random.normal(jax.random.key(0), cam.image_size)
    cropped = resample(Radiograph(image, cam), camera.crop(cam, jnp.array([30.0, 20.0]), (50, 60)))
    np.testing.assert_allclose(cropped.image, image[20:70, 30:90], atol=1e-5)


def test_resample_beyond_the_image_is_zero():
    cam = view()
    outside = camera.crop(cam, jnp.array([-40.0, -10.0]), (50, 60))
    image = resample(Radiograph(jnp.ones(cam.image_size), cam), outside).image
    np.testing.assert_allclose(image[:10], 0.0)
    np.testing.assert_allclose(image[:, :40], 0.0)
    np.testing.assert_allclose(image[10:, 40:], 1.0, atol=1e-6)


def test_blur_conserves_mass():
    image = jnp.zeros((41, 51)).at[20, 25].set(3.0)
    assert float(gaussian_blur(image, 2.5).sum()) == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize("sigma", [0.7, 2.0, 3.3])
def test_blur_against_scipy(sigma):
    image = np.random.default_rng(0).normal(size=(33, 47)).astype(np.float32)
    radius = max(1, round(3.0 * sigma))
    expected = ndimage.gaussian_filter(image, sigma, mode="constant", radius=radius)
    np.testing.assert_allclose(gaussian_blur(jnp.asarray(image), sigma), expected, atol=1e-5)


def test_blur_of_zero_sigma_is_the_image():
    image = jax.random.normal(jax.random.key(0), (8, 8))
    np.testing.assert_array_equal(gaussian_blur(image, 0.0), image)


def test_blur_gradient(x64):
    target = jax.random.normal(jax.random.key(1), (12, 15))
    image = jax.random.normal(jax.random.key(0), (12, 15))
    assert_gradient(lambda x: jnp.sum((gaussian_blur(x, 1.5) - target) ** 2), image, rtol=1e-6)
