import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import training
from dartjax.training import RANDOMISATIONS, RandomisationConfig

SHAPE = (48, 40)
CHANCES = ("invert", "noise", "gamma", "boxes", "salt", "contrast", "strong")
# The configuration is an argument, so that one compilation serves all of them.
randomise = jax.jit(lambda image, config, key: training.randomise(image, config, key=key))
with_labels = jax.jit(
    lambda image, masks, points, config, key: training.randomise_with_labels(
        image, masks, points, config, key=key
    )
)


@pytest.fixture(scope="module")
def image():
    """Line integrals from 0.7 to 5.2."""
    u, v = np.meshgrid(np.arange(SHAPE[1]) + 0.5, np.arange(SHAPE[0]) + 0.5)
    pixels = np.sin(u / 9.0) * np.cos(v / 7.0) + 0.02 * u
    pixels = (pixels - pixels.min()) / np.ptp(pixels)
    return jnp.asarray(0.7 + 4.5 * pixels, jnp.float32)


def keys(count):
    return jax.random.split(jax.random.key(1), count)


def test_without_operations_the_image_is_unchanged(image):
    for key in keys(3):
        np.testing.assert_array_equal(randomise(image, RANDOMISATIONS["none"], key), image)
    masks, points = jnp.stack([image > 2.0]).astype(jnp.float32), jnp.array([[3.0, 4.0], [-9, 1]])
    found = with_labels(image, masks, points, RANDOMISATIONS["none"], keys(1)[0])
    np.testing.assert_array_equal(found.image, image)
    np.testing.assert_array_equal(found.masks, masks)
    np.testing.assert_array_equal(found.landmarks, points)
    np.testing.assert_array_equal(found.new_from_old, np.eye(3))


@pytest.mark.parametrize("name", RANDOMISATIONS)
def test_results_are_finite_and_set_by_the_key(image, name):
    config = RANDOMISATIONS[name]
    found = [randomise(image, config, key) for key in keys(40)]
    assert all(np.isfinite(pixels).all() for pixels in found)
    np.testing.assert_array_equal(found[3], randomise(image, config, keys(40)[3]))
    different = {np.asarray(pixels).tobytes() for pixels in found}
    assert len(different) == 1 if name == "none" else len(different) > 20


def test_constant_images_stay_finite(image):
    for key in keys(10):
        assert np.isfinite(randomise(0.0 * image + 3.0, RANDOMISATIONS["synthex"], key)).all()


@pytest.mark.slow
def test_vmap_is_the_loop(image):
    """Over images and configurations: a batch may hold its own for every image."""
    images = jnp.stack([image, 2.0 * image, image**2, -image, image.at[:5].set(9.0), image])
    configs = [RANDOMISATIONS["synthex"]] * 4 + [RANDOMISATIONS["mild"], RandomisationConfig()]
    stacked = jax.tree.map(lambda *leaves: jnp.array(leaves), *configs)
    batch = jax.jit(jax.vmap(lambda x, c, key: training.randomise(x, c, key=key)))
    found = batch(images, stacked, keys(6))
    for pixels, single, config, key in zip(found, images, configs, keys(6), strict=True):
        expected = randomise(single, config, key)
        np.testing.assert_allclose(pixels, expected, atol=1e-4 * float(jnp.ptp(expected)))
    np.testing.assert_array_equal(found[5], image)


@pytest.mark.parametrize("name", [chance for chance in CHANCES if chance != "strong"])
def test_each_probability_switches_its_operation(image, name):
    always = dataclasses.replace(RandomisationConfig(), **{name: 1.0})
    assert all(not np.array_equal(randomise(image, always, key), image) for key in keys(5))


def test_share_of_images_changed(image):
    """400 draws of a chance of 0.3: within four sigma; only inversion turns the image over."""
    config = dataclasses.replace(RandomisationConfig(), invert=0.3)
    found = np.stack([randomise(image, config, key) for key in keys(400)])
    inverted = np.abs(found - (5.9 - np.asarray(image))[None]).max((1, 2)) < 1e-4
    untouched = (found == np.asarray(image)).all((1, 2))
    assert (inverted ^ untouched).all()
    assert abs(inverted.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 400)


def test_one_or_two_strong_operations_are_applied(image):
    """With sure members nearly every image changes, with none no image does."""
    one = dataclasses.replace(RandomisationConfig(), strong=1.0, strong_member=1.0)
    assert all(not np.array_equal(randomise(image, one, key), image) for key in keys(20))
    none = dataclasses.replace(one, strong_member=0.0)
    assert all(np.array_equal(randomise(image, none, key), image) for key in keys(20))


def test_noise_is_a_share_of_the_range(image):
    """sigma is 0.5 to 1 % of the range of values, 4.5 here, whatever the units."""
    config = dataclasses.replace(RandomisationConfig(), noise=1.0)
    for key in keys(5):
        sigma = np.std(np.asarray(randomise(image, config, key) - image))
        assert 0.9 * 0.005 * 4.5 < sigma < 1.1 * 0.01 * 4.5
        scaled = np.std(np.asarray(randomise(100.0 * image, config, key) - 100.0 * image))
        np.testing.assert_allclose(scaled, 100.0 * sigma, rtol=1e-3)


def test_tone_keeps_the_range(image):
    config = dataclasses.replace(RandomisationConfig(), gamma=1.0)
    for key in keys(5):
        found = randomise(image, config, key)
        np.testing.assert_allclose([found.min(), found.max()], [0.7, 5.2], atol=1e-4)


def test_labels_follow(image):
    """The landmarks move by new_from_old, and a mask with its landmark in the middle."""
    config = dataclasses.replace(RandomisationConfig(), affine=1.0, crop=1.0, shift_px=3.0)
    point = jnp.array([[22.3, 25.6], [10.0, 9.0]])
    u, v = np.meshgrid(np.arange(SHAPE[1]) + 0.5, np.arange(SHAPE[0]) + 0.5)
    spot = np.exp(-((u - 22.3) ** 2 + (v - 25.6) ** 2) / 18.0)
    for key in keys(8):
        found = with_labels(image, jnp.asarray(spot[None], jnp.float32), point, config, key)
        assert not np.allclose(found.new_from_old, np.eye(3))
        expected = np.c_[point, np.ones(2)] @ np.asarray(found.new_from_old).T
        np.testing.assert_allclose(found.landmarks, expected[:, :2], atol=1e-3)
        weights = np.asarray(found.masks[0], np.float64)
        middle = np.array([(u * weights).sum(), (v * weights).sum()]) / weights.sum()
        assert np.linalg.norm(middle - np.asarray(found.landmarks[0])) < 0.1
