"""Similarities against naive loops, histograms, finite differences and their invariances."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import interpolate, ndimage

from dartjax.image import gaussian_blur
from dartjax.render import (
    gradient_ncc,
    gray_dice,
    local_gradient_ncc,
    mutual_information,
    ncc,
    patch_ncc,
    xvr_similarity,
)
from tests.gradients import assert_gradient

SIMILARITIES = {
    "ncc": ncc,
    "patch_ncc": partial(patch_ncc, window=5),
    "gradient_ncc": gradient_ncc,
    "local_gradient_ncc": partial(local_gradient_ncc, window=5),
    "xvr_similarity": xvr_similarity,
    "mutual_information": partial(mutual_information, bins=16),
}
# Compiled once per similarity and shared by the tests, which all use one image size.
VALUE_AND_GRAD = {name: jax.jit(jax.value_and_grad(f)) for name, f in SIMILARITIES.items()}
all_similarities = pytest.mark.parametrize("name", SIMILARITIES)


def images(shape=(24, 30), seed=0):
    """Two smooth, related images and weights between 0 and 1 with a hole."""
    keys = jax.random.split(jax.random.key(seed), 3)
    first, noise = (gaussian_blur(jax.random.normal(key, shape), 1.0) for key in keys[:2])
    weights = jax.random.uniform(keys[2], shape).at[:4].set(0.0).at[12:15, 10:14].set(0.0)
    return 2.0 + first, 1.0 + 0.5 * first + 0.3 * noise, weights


def naive_ncc(a, b, weights):
    weights = weights / weights.sum()
    a, b = a - (weights * a).sum(), b - (weights * b).sum()
    return (weights * a * b).sum() / np.sqrt((weights * a * a).sum() * (weights * b * b).sum())


def naive_local_ncc(a, b, weights, window, eps):
    radius = window // 2
    moments = {}
    for row, column in np.argwhere(weights > 0):
        patch = np.s_[
            max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1
        ]
        w = weights[patch] / weights[patch].sum()
        da, db = a[patch] - (w * a[patch]).sum(), b[patch] - (w * b[patch]).sum()
        moments[row, column] = [(w * da * da).sum(), (w * db * db).sum(), (w * da * db).sum()]
    w = np.array([weights[pixel] for pixel in moments])
    var_a, var_b, cov = np.array(list(moments.values())).T
    floor_a, floor_b = (eps * np.average(v, weights=w) for v in (var_a, var_b))
    return np.average(cov / np.sqrt((var_a + floor_a) * (var_b + floor_b)), weights=w)


def naive_gradients(image, weights, *, sobel):
    """Per axis: the gradient and the weights where its whole stencil is known and inside."""
    derivative, smooth = np.array([-0.5, 0.0, 0.5]), np.array([0.25, 0.5, 0.25])
    for axis in (1, 0):
        gradient = ndimage.correlate1d(image, derivative, axis)
        reach = np.ones((3, 3 if sobel else 1), bool)
        if sobel:
            gradient = ndimage.correlate1d(gradient, smooth, 1 - axis)
        if axis == 1:
            reach = reach.T
        known = ndimage.binary_erosion(weights > 0, reach, border_value=0)
        yield gradient, weights * known


def float64_images(**options):
    return tuple(np.asarray(image, np.float64) for image in images(**options))


def test_ncc_against_its_formula(x64):
    a, b, weights = float64_images()
    found = ncc(jnp.asarray(a), jnp.asarray(b), jnp.asarray(weights))
    assert float(found) == pytest.approx(naive_ncc(a, b, weights), abs=1e-10)
    plain = ncc(jnp.asarray(a), jnp.asarray(b), jnp.ones(a.shape))
    assert float(plain) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-10)


@pytest.mark.parametrize(("window", "eps"), [(3, 1e-5), (9, 1e-5), (5, 0.05)])
def test_patch_ncc_against_a_loop(x64, window, eps):
    a, b, weights = float64_images()
    found = patch_ncc(*map(jnp.asarray, (a, b, weights)), window=window, eps=eps)
    assert float(found) == pytest.approx(naive_local_ncc(a, b, weights, window, eps), abs=1e-9)


def test_gradient_ncc_against_scipy_sobel(x64):
    a, b, weights = float64_images()
    expected = [
        naive_ncc(gradient_a, gradient_b, known)
        for (gradient_a, known), (gradient_b, _) in zip(
            naive_gradients(a, weights, sobel=True),
            naive_gradients(b, weights, sobel=True),
            strict=True,
        )
    ]
    found = gradient_ncc(*map(jnp.asarray, (a, b, weights)))
    assert float(found) == pytest.approx(np.mean(expected), abs=1e-9)


def test_local_gradient_ncc_against_a_loop(x64):
    a, b, weights = float64_images()
    expected = [
        naive_local_ncc(gradient_a, gradient_b, known, 5, 0.03)
        for (gradient_a, known), (gradient_b, _) in zip(
            naive_gradients(a, weights, sobel=False),
            naive_gradients(b, weights, sobel=False),
            strict=True,
        )
    ]
    found = local_gradient_ncc(*map(jnp.asarray, (a, b, weights)), window=5, eps=0.03)
    assert float(found) == pytest.approx(np.mean(expected), abs=1e-9)


def test_xvr_similarity_is_its_recipe(x64):
    a, b, weights = float64_images()
    edges = [
        naive_local_ncc(gradient_a, gradient_b, known, 11, 1e-5)
        for (gradient_a, known), (gradient_b, _) in zip(
            naive_gradients(a, weights, sobel=True),
            naive_gradients(b, weights, sobel=True),
            strict=True,
        )
    ]
    multiscale = 0.5 * naive_ncc(a, b, weights) + 0.5 * naive_local_ncc(a, b, weights, 9, 1e-5)
    found = xvr_similarity(*map(jnp.asarray, (a, b, weights)))
    assert float(found) == pytest.approx(0.5 * multiscale + 0.5 * np.mean(edges), abs=1e-9)


def histogram_mutual_information(a, b, bins):
    joint = np.histogram2d(a, b, bins)[0] / len(a)
    marginals = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    filled = joint > 0
    return (joint[filled] * np.log(joint[filled] / marginals[filled])).sum()


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_mutual_information_against_a_histogram_and_the_normal_law(correlation):
    normal = np.random.default_rng(0).standard_normal((2, 300 * 300))
    a, b = normal[0], correlation * normal[0] + np.sqrt(1 - correlation**2) * normal[1]
    exact = -0.5 * np.log(1 - correlation**2)
    a32, b32 = (jnp.asarray(x.reshape(300, 300), jnp.float32) for x in (a, b))
    found = float(mutual_information(a32, b32, jnp.ones((300, 300)), bins=64))
    # The cubic Parzen window blurs by 0.6 bins, which can only lose information.
    assert found <= histogram_mutual_information(a, b, 59) + 1e-3
    assert found == pytest.approx(exact, rel=0.05, abs=0.01)


def test_mutual_information_against_a_loop_over_pixels(x64):
    """The Parzen histogram of Mattes et al., pixel by pixel, with scipy's B-spline."""
    a, b, weights = float64_images()
    bins, counts = 16, weights > 0
    spline = interpolate.BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)

    def shares(image):
        low, high = image[counts].min(), image[counts].max()
        position = 2.0 + (bins - 5) * (image[counts] - low) / (high - low)
        return np.array([[np.nan_to_num(spline(p - i)) for i in range(bins)] for p in position])

    joint = np.zeros((bins, bins))
    for in_a, in_b, weight in zip(shares(a), shares(b), weights[counts], strict=True):
        joint += weight * np.outer(in_a, in_b)
    joint /= joint.sum()
    alone = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    filled = joint > 0
    expected = np.sum(joint[filled] * np.log(joint[filled] / alone[filled]))
    found = mutual_information(*map(jnp.asarray, (a, b, weights)), bins=bins)
    assert float(found) == pytest.approx(expected, abs=1e-9)


@all_similarities
def test_gradients(x64, name):
    a, b, weights = (jnp.asarray(image) for image in float64_images())
    assert_gradient(lambda x: SIMILARITIES[name](x, b, weights), a, step=1e-6, rtol=2e-5, atol=1e-8)


def value(name, a, b, weights):
    return float(VALUE_AND_GRAD[name](a, b, weights)[0])


@all_similarities
def test_gain_and_offset_do_not_matter(name):
    a, b, weights = images()
    expected = value(name, a, b, weights)
    assert expected > 0.05
    assert value(name, 3.0 * a + 7.0, b, weights) == pytest.approx(expected, abs=2e-4)
    assert value(name, a, 0.2 * b - 5.0, weights) == pytest.approx(expected, abs=2e-4)


@all_similarities
def test_pixels_of_weight_zero_are_not_read(name):
    a, b, weights = images()
    expected, gradient = VALUE_AND_GRAD[name](a, b, weights)
    for filler in (jnp.nan, 1e6):
        changed = (jnp.where(weights > 0, image, filler) for image in (a, b))
        found, again = VALUE_AND_GRAD[name](*changed, weights)
        assert float(found) == float(expected)
        np.testing.assert_array_equal(again, gradient)
    np.testing.assert_array_equal(np.asarray(gradient)[np.asarray(weights) == 0], 0.0)


@pytest.mark.parametrize("name", ["ncc", "patch_ncc", "gradient_ncc", "xvr_similarity"])
def test_an_image_is_like_itself(name):
    a, _, weights = images()
    assert value(name, a, a, weights) == pytest.approx(1.0, abs=2e-4)
    assert value(name, a, -a, weights) == pytest.approx(-1.0, abs=2e-4)


def test_local_gradient_ncc_of_an_image_with_itself():
    a, b, weights = images()
    similarity = jax.jit(local_gradient_ncc, static_argnames="eps")
    own = [float(similarity(a, a, weights, eps=eps)) for eps in (0.05, 0.02, 1e-6)]
    assert own[0] < own[1] < own[2] == pytest.approx(1.0, abs=1e-3)
    assert float(similarity(a, b, weights, eps=0.05)) < own[0]


def test_mutual_information_is_largest_with_itself():
    a, b, weights = images()
    own = value("mutual_information", a, a, weights)
    assert value("mutual_information", a, b, weights) < own <= np.log(16)
    any_relation = value("mutual_information", a, jnp.exp(-a), weights)
    assert any_relation > 0.7 * own


@all_similarities
@pytest.mark.parametrize("constant", [0.0, 3.7, -1e4])
def test_constant_images_give_zero(name, constant):
    a, _, weights = images()
    flat = jnp.full_like(a, constant)
    for pair in ((flat, a), (a, flat), (flat, flat)):
        found, gradient = VALUE_AND_GRAD[name](*pair, weights)
        assert float(found) == pytest.approx(0.0, abs=1e-6)
        assert np.isfinite(gradient).all()


@all_similarities
def test_no_weights_give_zero(name):
    a, b, weights = images()
    found, gradient = VALUE_AND_GRAD[name](a, b, jnp.zeros_like(weights))
    assert float(found) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("similarity", [patch_ncc, local_gradient_ncc])
def test_even_windows_are_rejected(similarity):
    with pytest.raises(ValueError, match="window is 4 pixels: give an odd number"):
        similarity(*images(), window=4)


@all_similarities
def test_vmap_over_views(name):
    batch = [jnp.stack(pair) for pair in zip(images(), images(seed=1), strict=True)]
    found = jax.jit(jax.vmap(SIMILARITIES[name]))(*batch)
    expected = [value(name, *images(seed=seed)) for seed in (0, 1)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gray_dice_knows_gain_and_offset():
    a, _, weights = images()
    assert float(gray_dice(a, a, weights)) == pytest.approx(1.0)
    for other in (2.0 * a, a + 1.0, -a):
        expected = 2 * np.sum(weights * a * other) / np.sum(weights * (a**2 + other**2))
        assert float(gray_dice(a, other, weights)) == pytest.approx(float(expected), rel=1e-4)
        assert float(expected) < 0.99
    unread = jnp.where(weights > 0.0, a, jnp.nan)
    assert float(gray_dice(unread, a, weights)) == pytest.approx(1.0)
    nothing = jnp.zeros_like(a)
    assert float(gray_dice(nothing, nothing, weights)) == 0.0
    assert np.isfinite(np.asarray(jax.grad(gray_dice)(nothing, nothing, weights))).all()
