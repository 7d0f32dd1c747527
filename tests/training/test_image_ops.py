"""Every operation against a formula, a statistic or another library."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import block_reduce

from dartjax.training import image_ops as ops

KEY = jax.random.key(3)
SHAPE = (52, 44)


@pytest.fixture(scope="module")
def image():
    return jax.random.uniform(jax.random.key(0), SHAPE)


GRAY = jnp.full((400, 300), 0.5)


def test_invert(image):
    np.testing.assert_allclose(ops.invert(image), 1.0 - np.asarray(image))


def test_gaussian_noise_has_its_sigma():
    noise = np.asarray(ops.gaussian_noise(GRAY, 0.03, key=KEY)) - 0.5
    assert abs(noise.mean()) < 4 * 0.03 / np.sqrt(noise.size)
    np.testing.assert_allclose(noise.std(), 0.03, rtol=0.01)
    neighbours = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.02


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (lambda x: ops.gamma_contrast(x, 2.0), [0.0, 0.0625, 0.25, 1.0]),
        (lambda x: ops.linear_contrast(x, 2.0), [-0.5, 0.0, 0.5, 1.5]),
        (lambda x: ops.linear_contrast(x, 0.5), [0.25, 0.375, 0.5, 0.75]),
        (lambda x: ops.log_contrast(x, 1.0), [0.0, np.log2(1.25), np.log2(1.5), 1.0]),
        (lambda x: ops.log_contrast(x, 1.4), [0.0, 1.4 * np.log2(1.25), 1.4 * np.log2(1.5), 1.4]),
        (
            lambda x: ops.sigmoid_contrast(x, 10.0, 0.5),
            1 / (1 + np.exp(10 * (0.5 - np.array([0.0, 0.25, 0.5, 1.0])))),
        ),
        (lambda x: ops.multiply(x, 1.5), [0.0, 0.375, 0.75, 1.5]),
    ],
)
def test_tone_curves(operation, expected):
    found = operation(jnp.array([[0.0, 0.25, 0.5, 1.0]]))
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


@pytest.mark.parametrize("operation", [ops.gamma_contrast, ops.log_contrast])
def test_tone_curves_clip_their_input(operation):
    found = operation(jnp.array([[-0.3, 1.7]]), 0.9)
    np.testing.assert_allclose(found, operation(jnp.array([[0.0, 1.0]]), 0.9))


@pytest.mark.parametrize("sigma", [0.7, 1.5, 3.0])
def test_gaussian_blur_is_scipys(image, sigma):
    expected = ndimage.gaussian_filter(np.asarray(image), sigma, mode="nearest", radius=9)
    np.testing.assert_allclose(ops.gaussian_blur(image, sigma), expected, atol=2e-6)


def test_gaussian_blur_of_nothing(image):
    np.testing.assert_allclose(ops.gaussian_blur(image, 0.0), image, atol=1e-6)


@pytest.mark.parametrize("size", [1, 4, 5, 6, 7])
def test_average_blur_is_scipys(image, size):
    expected = ndimage.uniform_filter(np.asarray(image), size, mode="nearest")
    np.testing.assert_allclose(ops.average_blur(image, size), expected, atol=2e-6)


def test_sharpen_and_emboss_are_their_kernels(image):
    pixels = np.asarray(image, np.float64)
    sharp = np.full((3, 3), -1.0)
    sharp[1, 1] = 9.2
    expected = 0.3 * pixels + 0.7 * ndimage.correlate(pixels, sharp, mode="nearest")
    np.testing.assert_allclose(ops.sharpen(image, 0.7, 1.2), expected, atol=1e-5)
    relief = np.array([[-2.5, -1.5, 0], [-1.5, 1, 1.5], [0, 1.5, 2.5]])
    expected = 0.3 * pixels + 0.7 * ndimage.correlate(pixels, relief, mode="nearest")
    np.testing.assert_allclose(ops.emboss(image, 0.7, 1.5), expected, atol=1e-5)
    np.testing.assert_allclose(ops.emboss(image, 0.0, 1.5), image, atol=1e-6)


@pytest.mark.parametrize("kind", ["average", "max", "min", "median"])
def test_pooling_is_skimages(image, kind):
    reduce = {"average": np.mean, "max": np.max, "min": np.min, "median": np.median}[kind]
    blocks = block_reduce(np.asarray(image), 4, reduce)
    np.testing.assert_allclose(
        ops.pool(image, 4, kind), np.kron(blocks, np.ones((4, 4))), atol=1e-6
    )


def test_pooling_of_sides_that_do_not_divide():
    image = jnp.arange(35.0).reshape(5, 7)
    pooled = np.asarray(ops.pool(image, 4, "max"))
    assert pooled.shape == (5, 7)
    np.testing.assert_allclose(pooled[0, [0, 3, 4, 6]], [24, 24, 27, 27])
    np.testing.assert_allclose(pooled[4, [0, 4]], [31, 34])


def test_multiply_elementwise_is_uniform():
    factors = np.asarray(ops.multiply_elementwise(GRAY, 0.5, 1.5, key=KEY)) / 0.5
    assert 0.5 <= factors.min() < 0.51 and 1.49 < factors.max() <= 1.5
    np.testing.assert_allclose([factors.mean(), factors.std()], [1.0, 12**-0.5], atol=0.01)


@pytest.mark.parametrize("fraction", [0.1, 0.15])
def test_dropout_drops_its_share(fraction):
    dropped = np.asarray(ops.dropout(GRAY, fraction, key=KEY))
    assert set(np.unique(dropped)) == {0.0, 0.5}
    np.testing.assert_allclose((dropped == 0.0).mean(), fraction, atol=0.005)


def test_coarse_dropout_drops_cells():
    shares = []
    for seed in range(20):
        dropped = np.asarray(ops.coarse_dropout(GRAY, 0.12, 0.1, key=jax.random.key(seed)))
        cells = dropped.reshape(40, 10, 30, 10)  # a tenth of 400 x 300 pixels
        assert (cells == cells[:, :1, :, :1]).all()
        shares.append((dropped == 0.0).mean())
    np.testing.assert_allclose(np.mean(shares), 0.12, atol=0.01)


def test_impulse_noise_is_black_and_white():
    noisy = np.asarray(ops.impulse_noise(GRAY, 0.1, key=KEY))
    black, white = (noisy == 0.0).mean(), (noisy == 1.0).mean()
    np.testing.assert_allclose([black, white], 0.05, atol=0.004)
    np.testing.assert_allclose((noisy == 0.5).mean(), 0.9, atol=0.005)


def test_salt_and_pepper_follows_its_beta_distribution():
    noisy = np.asarray(ops.salt_and_pepper(GRAY, 0.1, key=KEY))
    replaced = noisy[noisy != 0.5]
    np.testing.assert_allclose(replaced.size / noisy.size, 0.1, atol=0.005)
    np.testing.assert_allclose([replaced.mean(), replaced.var()], [0.5, 0.125], atol=0.008)
    # The distribution function of Beta(1/2, 1/2) is 2/pi arcsin sqrt x.
    np.testing.assert_allclose((replaced < 0.1).mean(), 2 / np.pi * np.arcsin(0.1**0.5), atol=0.015)


def test_coarse_salt_and_pepper_fills_cells():
    noisy = np.asarray(ops.coarse_salt_and_pepper(GRAY, 0.3, 0.05, key=KEY))
    cells = noisy.reshape(20, 20, 15, 20)
    assert (cells == cells[:, :1, :, :1]).all()
    assert {0.0, 1.0, 0.5} == set(np.unique(noisy))


def test_noise_boxes():
    ramp = jnp.broadcast_to(jnp.linspace(0.0, 1.0, 300)[None], (400, 300))
    noise_boxes = jax.jit(ops.noise_boxes)
    np.testing.assert_array_equal(noise_boxes(ramp, 0.0, key=KEY), ramp)
    ratios = []
    for seed in range(12):
        noise = np.asarray(noise_boxes(ramp, 1.0, key=jax.random.key(seed)) - ramp)
        rows, columns = np.nonzero(noise)
        box = noise[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (box != 0.0).mean() > 0.99  # one whole rectangle
        if box.size > 500:
            ratios.append(box.std() / ((columns.max() - columns.min()) / 299))
    np.testing.assert_allclose(np.mean(ratios), 0.2, rtol=0.05)
    one, many = (np.asarray(noise_boxes(ramp, n, key=KEY) != ramp).sum() for n in (1.0, 5.0))
    assert many > one
