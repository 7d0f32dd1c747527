"""Operations on the gray values of one radiograph, for domain randomisation.

Every function takes one image (h, w) with values from 0 to 1 (`randomise` scales any image to
that range and back) and keeps its shape. Amounts may be traced; window sizes and kinds are
static. Operations that add or multiply may leave [0, 1], as in SyntheX; operations that need the
range clip their input to it.
Source of operations and names: SyntheX (Gao et al., Nature Machine Intelligence 5:294-308, 2023;
github.com/arcadelab/SyntheX) and imgaug, which it uses.
"""

from statistics import NormalDist
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dartjax._types import Image, Mask, Scalar

Amount = Scalar | float | int
Pooling = Literal["average", "max", "min", "median"]

MAX_BLUR_SIGMA_PX = 3.0
MAX_BLUR_WINDOW_PX = 7
MAX_BOXES = 5


def invert(image: Image) -> Image:
    """Compute 1 - x, which makes bone dark instead of bright."""
    return 1.0 - image


def gaussian_noise(image: Image, sigma: Amount, *, key: PRNGKeyArray) -> Image:
    """Add Gaussian noise: x + sigma n with n ~ N(0, 1) per pixel."""
    return image + sigma * jax.random.normal(key, image.shape, image.dtype)


def gamma_contrast(image: Image, exponent: Amount) -> Image:
    """Compute clip(x) ** exponent; an exponent above 1 darkens mid-range values."""
    # A floor keeps the gradient finite at black.
    return jnp.clip(image, 1e-12, 1.0) ** exponent


def linear_contrast(image: Image, factor: Amount) -> Image:
    """Compute 1/2 + factor (x - 1/2)."""
    return 0.5 + factor * (image - 0.5)


def log_contrast(image: Image, gain: Amount) -> Image:
    """Compute gain log2(1 + clip(x)), which brightens mid-range values; its maximum is gain."""
    return gain * jnp.log2(1.0 + jnp.clip(image, 0.0, 1.0))


def sigmoid_contrast(image: Image, gain: Amount, cutoff: Amount) -> Image:
    """Compute 1 / (1 + exp(gain (cutoff - clip(x)))), which is steepest at the cutoff."""
    return jax.nn.sigmoid(gain * (jnp.clip(image, 0.0, 1.0) - cutoff))


def gaussian_blur(image: Image, sigma_px: Amount) -> Image:
    """Blur by a Gaussian; sigma may be traced, 0 to 3 pixels (the window truncates larger ones).
    Border values are repeated beyond the image."""
    radius = round(3 * MAX_BLUR_SIGMA_PX)
    offsets = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma_px, 1e-2)) ** 2)
    return _separable(image, weights / jnp.sum(weights))


def average_blur(image: Image, size_px: Amount) -> Image:
    """Average over a square window; its side may be traced, 1 to 7 whole pixels. An even window
    extends one pixel further up and left."""
    radius = MAX_BLUR_WINDOW_PX // 2
    size = jnp.round(size_px)
    first = -jnp.floor(size / 2)
    offsets = jnp.arange(-radius, radius + 1)
    inside = (offsets >= first) & (offsets < first + size)
    return _separable(image, inside / jnp.sum(inside))


def sharpen(image: Image, alpha: Amount, lightness: Amount) -> Image:
    """Sharpen: (1 - alpha) x + alpha K x with the 3 x 3 kernel K of -1 around 8 + lightness."""
    kernel = jnp.full((3, 3), -1.0).at[1, 1].set(8.0 + lightness)
    return (1.0 - alpha) * image + alpha * _filter3(image, kernel)


def emboss(image: Image, alpha: Amount, strength: Amount) -> Image:
    """Emboss, with light from the upper left: (1 - alpha) x + alpha K x with the kernel
    K = [[-1-s, -s, 0], [-s, 1, s], [0, s, 1+s]]."""
    s = jnp.asarray(strength, float)
    zero, one = jnp.zeros(()), jnp.ones(())
    kernel = jnp.stack([-1.0 - s, -s, zero, -s, one, s, zero, s, 1.0 + s]).reshape(3, 3)
    return (1.0 - alpha) * image + alpha * _filter3(image, kernel)


def pool(image: Image, size: int, kind: Pooling) -> Image:
    """Replace every block of size x size pixels by one pooled value."""
    height, width = image.shape
    padded = jnp.pad(image, ((0, -height % size), (0, -width % size)), mode="edge")
    rows, columns = padded.shape[0] // size, padded.shape[1] // size
    blocks = padded.reshape(rows, size, columns, size).transpose(0, 2, 1, 3)
    blocks = blocks.reshape(rows, columns, size * size)
    reduce = {"average": jnp.mean, "max": jnp.max, "min": jnp.min, "median": jnp.median}[kind]
    values = jnp.repeat(jnp.repeat(reduce(blocks, axis=-1), size, 0), size, 1)
    return values[:height, :width]


def multiply(image: Image, factor: Amount) -> Image:
    """Compute factor x."""
    return factor * image


def multiply_elementwise(image: Image, low: Amount, high: Amount, *, key: PRNGKeyArray) -> Image:
    """Multiply every pixel by its own random factor, uniform in [low, high]."""
    return image * (low + (high - low) * jax.random.uniform(key, image.shape))


def dropout(image: Image, fraction: Amount, *, key: PRNGKeyArray) -> Image:
    """Set a share (`fraction`) of the pixels to 0."""
    return jnp.where(jax.random.uniform(key, image.shape) < fraction, 0.0, image)


def coarse_dropout(
    image: Image, fraction: Amount, cell_share: Amount, *, key: PRNGKeyArray
) -> Image:
    """Set a share (`fraction`) of coarse cells to 0; along each axis there are `cell_share` (at
    most 0.15) times as many cells as pixels."""
    dropped = _coarse_uniform(image.shape, cell_share, 0.15, key=key) < fraction
    return jnp.where(dropped, 0.0, image)


def impulse_noise(image: Image, fraction: Amount, *, key: PRNGKeyArray) -> Image:
    """Set a share (`fraction`) of the pixels to 0 or 1 with equal probability."""
    return _salted(image, jax.random.uniform(key, image.shape), fraction)


def salt_and_pepper(image: Image, fraction: Amount, *, key: PRNGKeyArray) -> Image:
    """Set a share (`fraction`) of the pixels to values drawn from Beta(1/2, 1/2), mostly near 0 or
    1."""
    uniform = jax.random.uniform(key, image.shape)
    # Where it is below the fraction, uniform / fraction is uniform again.
    values = jnp.sin(0.5 * jnp.pi * uniform / jnp.maximum(fraction, 1e-6)) ** 2
    return jnp.where(uniform < fraction, values, image)


def coarse_salt_and_pepper(
    image: Image, fraction: Amount, cell_share: Amount, *, key: PRNGKeyArray
) -> Image:
    """Set a share (`fraction`) of coarse cells to 0 or 1; cells as in `coarse_dropout`, at most 0.1
    times as many as pixels."""
    return _salted(image, _coarse_uniform(image.shape, cell_share, 0.1, key=key), fraction)


def noise_boxes(image: Image, count: Amount, *, key: PRNGKeyArray) -> Image:
    """Add Gaussian noise in `count` (0 to 5) random boxes, with a sigma of 0.2 of the range of
    values in the box. Sides are N(0.15, 0.15) of the image's, truncated to the image; variances of
    overlapping boxes add up."""
    height, width = image.shape
    box_key, noise_key = jax.random.split(key)
    uniform = jax.random.uniform(box_key, (MAX_BOXES, 4))
    size = jnp.broadcast_to(jnp.array([height, width], float), (MAX_BOXES, 2))
    # Truncated normal numbers by the inverse distribution, between one pixel and the whole image.
    low, high = (
        jnp.array([NormalDist(0.15, 0.15).cdf(share) for share in shares])
        for shares in ((1.0 / height, 1.0 / width), (1.0, 1.0))
    )
    probability = low[None] + (high - low)[None] * uniform[:, :2]
    normal = jnp.sqrt(2.0) * jax.lax.erf_inv(2.0 * probability - 1.0)
    sides = jnp.round((0.15 + 0.15 * normal) * size)
    starts = jnp.floor(uniform[:, 2:] * (size - sides + 1.0))
    variance = jnp.zeros_like(image)
    for box in range(MAX_BOXES):
        inside = _inside(image.shape, starts[box], sides[box])
        low = jnp.min(jnp.where(inside, image, jnp.inf))
        high = jnp.max(jnp.where(inside, image, -jnp.inf))
        variance += jnp.where(inside & (box < count), (0.2 * (high - low)) ** 2, 0.0)
    return image + jnp.sqrt(variance) * jax.random.normal(noise_key, image.shape)


def _separable(image: Image, weights: Float[Array, " k"]) -> Image:
    return _filter_rows(_filter_rows(image, weights).T, weights).T


def _filter_rows(image: Image, weights: Float[Array, " k"]) -> Image:
    # A sum of shifted rows: faster on CPU than a general convolution of a single channel.
    radius = weights.shape[0] // 2
    padded = jnp.pad(image, ((radius, radius), (0, 0)), mode="edge")
    height = image.shape[0]
    total = jnp.zeros_like(image)
    for i in range(weights.shape[0]):
        total += weights[i] * padded[i : i + height]
    return total


def _filter3(image: Image, kernel: Float[Array, "3 3"]) -> Image:
    padded = jnp.pad(image, 1, mode="edge")
    height, width = image.shape
    total = jnp.zeros_like(image)
    for i in range(3):
        for j in range(3):
            total += kernel[i, j] * padded[i : i + height, j : j + width]
    return total


def _coarse_uniform(
    shape: tuple[int, ...], cell_share: Amount, max_share: float, *, key: PRNGKeyArray
) -> Image:
    """Draw one uniform number per cell of a coarse grid, repeated over the pixels of the cell."""
    most = [max(2, round(max_share * n)) for n in shape]
    numbers = jax.random.uniform(key, tuple(most))
    rows, columns = (
        jnp.clip(jnp.floor(jnp.arange(n) * cell_share).astype(int), 0, m - 1)
        for n, m in zip(shape, most, strict=True)
    )
    return numbers[rows][:, columns]


def _salted(image: Image, uniform: Image, fraction: Amount) -> Image:
    salt = jnp.where(uniform < 0.5 * fraction, 1.0, 0.0)
    return jnp.where(uniform < fraction, salt, image)


def _inside(shape: tuple[int, ...], start: Float[Array, "2"], side: Float[Array, "2"]) -> Mask:
    rows, columns = (
        (jnp.arange(n) >= start[axis]) & (jnp.arange(n) < start[axis] + side[axis])
        for axis, n in enumerate(shape)
    )
    return rows[:, None] & columns[None, :]
