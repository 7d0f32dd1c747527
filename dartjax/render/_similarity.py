"""Image similarities for 2D/3D registration: differentiable, of one image pair, higher is better.

Each takes (rendered, observed, weights) and returns a scalar. `weights` >= 0 are pixel weights;
pixels of weight 0 are ignored and may be NaN. An image that is constant over the weighted pixels,
or weights that are all 0, give 0 with gradient 0. Options are keywords with defaults: bind them
with `functools.partial` to get a `Similarity`.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from dartjax._numerics import safe_divide
from dartjax._types import Image, Scalar

Similarity = Callable[[Image, Image, Image], Scalar]


def ncc(rendered: Image, observed: Image, weights: Image) -> Scalar:
    """Compute normalised cross-correlation in [-1, 1]; 1 if equal up to gain > 0 and offset.

    sum w (a - mean a)(b - mean b) / sqrt(sum w (a - mean a)^2 sum w (b - mean b)^2) with
    weighted means. It is global: other anatomy in the image also contributes.
    """
    a, b = _standardize(rendered, weights), _standardize(observed, weights)
    return _weighted_mean(a * b, weights)


def gray_dice(rendered: Image, observed: Image, weights: Image) -> Scalar:
    """Compute 2 sum w a b / (sum w a^2 + sum w b^2).

    1 only for equal images, gain and offset included: for images of the same quantity, such as
    path lengths through one bone."""
    counted = weights > 0.0
    a, b = (jnp.where(counted, image, 0.0) for image in (rendered, observed))
    return safe_divide(
        2.0 * jnp.sum(weights * a * b), jnp.sum(weights * a * a) + jnp.sum(weights * b * b)
    )


def patch_ncc(
    rendered: Image, observed: Image, weights: Image, *, window: int = 9, eps: float = 1e-5
) -> Scalar:
    """Compute local NCC: the weighted mean over pixels of the NCC in a window around each pixel.

    Windows are square, `window` pixels wide (odd, else ValueError), and use the weighted pixels
    they contain, also at the border. Each window's score is
    cov / sqrt((var_a + eps mean(var_a)) (var_b + eps mean(var_b))), so a flat window scores
    0 instead of amplifying noise, and an image against itself gives 1 up to eps.
    """
    a, b = _standardize(rendered, weights), _standardize(observed, weights)
    return _local_ncc(a, b, weights, window, eps)


def gradient_ncc(rendered: Image, observed: Image, weights: Image) -> Scalar:
    """Compute the mean of the NCC of the Sobel x-gradients and of the Sobel y-gradients.

    Penney et al. 1998, "A comparison of similarity measures for use in 2-D-3-D medical image
    registration". Pixels whose 3 x 3 neighbourhood touches weight 0 or the border are excluded.
    """
    return jnp.mean(jax.vmap(ncc)(*_gradients(rendered, observed, weights, smooth=True)))


def local_gradient_ncc(
    rendered: Image, observed: Image, weights: Image, *, window: int = 7, eps: float = 0.03
) -> Scalar:
    """Compute local NCC (see `patch_ncc`) of central-difference gradients, mean of x and y.

    Windows of 4-5 mm at the vertebra and eps of .02-.05 register best among neighbouring
    bones: a window contains one edge, and eps suppresses windows without edges. An image against
    itself gives mean(var / (var + eps mean(var))), below 1. `window` in pixels, odd.
    """
    local = jax.vmap(partial(patch_ncc, window=window, eps=eps))
    return jnp.mean(local(*_gradients(rendered, observed, weights, smooth=False)))


def xvr_similarity(rendered: Image, observed: Image, weights: Image) -> Scalar:
    """Compute the multiscale similarity of xvr (Gopalakrishnan et al. 2025, arXiv:2503.16309).

    Half the mean of NCC and 9 px patch NCC, plus half the 11 px patch NCC of the Sobel gradients
    (no blur before Sobel). Here xvr's eps of 1e-5 is relative to the variance of the image.
    """
    gradients = _gradients(rendered, observed, weights, smooth=True)
    images = 0.5 * (ncc(rendered, observed, weights) + patch_ncc(rendered, observed, weights))
    return 0.5 * (images + jnp.mean(jax.vmap(partial(patch_ncc, window=11))(*gradients)))


def mutual_information(
    rendered: Image, observed: Image, weights: Image, *, bins: int = 32
) -> Scalar:
    """Compute mutual information in nats, sum p(a, b) log(p(a, b) / (p(a) p(b))), from a joint
    histogram with cubic B-spline Parzen windows of one bin (Mattes et al. 2003, IEEE TMI).

    The weighted range of each image is spread over the inner `bins` - 4 bins, so the value does
    not change with gain and offset. It is >= 0 and at most log(bins); `bins` >= 6.
    """
    a = _bin_weights(rendered, weights, bins)
    b = _bin_weights(observed, weights, bins)
    total = jnp.sum(weights)
    joint = (a * weights.reshape(-1, 1)).T @ b
    joint = safe_divide(joint, jnp.broadcast_to(total, joint.shape))
    entropy_a, entropy_b = _entropy(jnp.sum(joint, 1)), _entropy(jnp.sum(joint, 0))
    return entropy_a + entropy_b - _entropy(joint)


def _weighted_mean(image: Image, weights: Image) -> Scalar:
    return safe_divide(jnp.sum(weights * image), jnp.sum(weights))


def _standardize(image: Image, weights: Image) -> Image:
    """(image - mean) / standard deviation under the weights; all 0 for a constant image."""
    image = jnp.where(weights > 0, image, 0.0)
    mean = _weighted_mean(image, weights)
    centered = jnp.where(weights > 0, image - mean, 0.0)
    variance = _weighted_mean(centered**2, weights)
    # A smaller variance is rounding error of the mean, not contrast.
    varies = variance > (16.0 * jnp.finfo(image.dtype).eps * mean) ** 2
    return centered * jnp.where(varies, lax.rsqrt(jnp.where(varies, variance, 1.0)), 0.0)


def _local_ncc(a: Image, b: Image, weights: Image, window: int, eps: float) -> Scalar:
    # Raw moments are safe in float32 because a and b have zero mean and unit variance.
    mass = _box_sum(weights, window)
    per_mass = safe_divide(jnp.ones_like(mass), mass)
    mean_a, mean_b, square_a, square_b, product = (
        _box_sum(weights * moment, window) * per_mass for moment in (a, b, a * a, b * b, a * b)
    )
    variance_a = jnp.maximum(square_a - mean_a**2, 0.0)
    variance_b = jnp.maximum(square_b - mean_b**2, 0.0)
    floor_a = eps * _weighted_mean(variance_a, weights)
    floor_b = eps * _weighted_mean(variance_b, weights)
    scale = (variance_a + floor_a) * (variance_b + floor_b)
    scale = jnp.where(scale > 0, lax.rsqrt(jnp.where(scale > 0, scale, 1.0)), 0.0)
    return _weighted_mean((product - mean_a * mean_b) * scale, weights)


def _box_sum(image: Image, window: int) -> Image:
    """Sum over the window x window pixels around each pixel; zero outside the image."""
    if window % 2 == 0:
        raise ValueError(f"window is {window} pixels: give an odd number")
    # Two one-dimensional passes: on CPU 3-5 times faster, gradient included, than sums of
    # shifted slices, cumulative sums, banded matrix products or one square window.
    rows = lax.reduce_window(image, 0.0, lax.add, (window, 1), (1, 1), "SAME")
    return lax.reduce_window(rows, 0.0, lax.add, (1, window), (1, 1), "SAME")


def _gradients(
    rendered: Image, observed: Image, weights: Image, *, smooth: bool
) -> tuple[Float[Array, "2 h w"], Float[Array, "2 h w"], Float[Array, "2 h w"]]:
    """Compute x and y gradients of both images and their weights: vmap a similarity over them."""
    a, b = (jnp.where(weights > 0, image, 0.0) for image in (rendered, observed))
    difference = partial(_difference_rows, smooth=smooth)
    known = partial(_interior_weights, smooth=smooth)
    return (
        jnp.stack([difference(a.T).T, difference(a)]),
        jnp.stack([difference(b.T).T, difference(b)]),
        jnp.stack([known(weights.T).T, known(weights)]),
    )


def _difference_rows(image: Image, *, smooth: bool) -> Image:
    """Compute half the difference of the next and the previous row, 0 in the first and last row;
    `smooth` averages columns with (1, 2, 1) / 4, which makes it Sobel / 8."""
    difference = jnp.pad(0.5 * (image[2:] - image[:-2]), ((1, 1), (0, 0)))
    if not smooth:
        return difference
    padded = jnp.pad(difference, ((0, 0), (1, 1)))
    return 0.25 * (padded[:, :-2] + 2.0 * difference + padded[:, 2:])


def _interior_weights(weights: Image, *, smooth: bool) -> Image:
    """Set weights to 0 where a row difference would read a pixel of weight 0."""
    known = jnp.pad((weights[2:] > 0) & (weights[:-2] > 0), ((1, 1), (0, 0)))
    if smooth:
        padded = jnp.pad(known, ((0, 0), (1, 1)))
        known = padded[:, :-2] & known & padded[:, 2:]
    return jnp.where(known, weights, 0.0)


def _bin_weights(image: Image, weights: Image, bins: int) -> Float[Array, "pixel bin"]:
    """Cubic B-spline share of every pixel in every bin; rows sum to 1."""
    counts = weights > 0
    low = jnp.min(jnp.where(counts, image, jnp.inf))
    high = jnp.max(jnp.where(counts, image, -jnp.inf))
    varies = high > low
    low, span = (
        jnp.where(varies, low, 0.0),
        jnp.where(varies, high, 0.0) - jnp.where(varies, low, 0.0),
    )
    offset = jnp.where(counts & varies, jnp.where(counts, image, 0.0) - low, 0.0)
    position = 2.0 + (bins - 5) * safe_divide(offset, jnp.broadcast_to(span, offset.shape))
    return _cubic_bspline(position.reshape(-1, 1) - jnp.arange(bins)[None, :])


def _cubic_bspline(x: Float[Array, "n bin"]) -> Float[Array, "n bin"]:
    x = jnp.abs(x)
    inner = (4.0 - 6.0 * x**2 + 3.0 * x**3) / 6.0
    return jnp.where(x < 1.0, inner, jnp.maximum(2.0 - x, 0.0) ** 3 / 6.0)


def _entropy(probability: Float[Array, "..."]) -> Scalar:
    positive = probability > 0
    return -jnp.sum(probability * jnp.log(jnp.where(positive, probability, 1.0)))
