"""Flat-panel detector model: scatter, quantum noise, blur, electronic noise, log transform.

Every stage is a pure function of images (h, w). A signal is in units of the open beam: 1 is the
energy that an uncovered pixel detects. The model describes a calibrated detector: the open beam is
flat and offsets are removed. Afterglow and glare are not modelled.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import erf
from jaxtyping import Array, Float, PRNGKeyArray

from dartjax._types import Image, Scalar
from dartjax.render._spectrum import Spectrum

# Water depth for which the scatter-to-primary ratio is given.
REFERENCE_WATER_MM = 200.0
_SCATTER_POWER = 1.5
_HALF_READING = 0.5


def collimation(
    image_size: tuple[int, int],
    shutters: Float[Array, "4"],
    iris_radius: Scalar,
    edge_px: Scalar,
    leakage: Scalar,
) -> Image:
    """Compute the share of the beam that passes the collimator at every pixel.

    `shutters` are the left, upper, right and lower edges of the field as fractions of the
    image's width and height (0, 0, 1, 1 is open); `iris_radius` is a fraction of half the
    diagonal about the middle (1 is open). Edges are blurred by the focal spot over about
    `edge_px`; `leakage` is the share that passes the lead.
    """
    height, width = image_size
    u, v = jnp.arange(width) + 0.5, jnp.arange(height) + 0.5
    left, upper, right, lower = shutters * jnp.array([width, height, width, height])
    # An edge at or beyond the image border must not shade the image.
    across = _inside(u - left, left <= 0.0, edge_px) * _inside(right - u, right >= width, edge_px)
    along = _inside(v - upper, upper <= 0.0, edge_px) * _inside(lower - v, lower >= height, edge_px)
    from_middle = jnp.hypot(u[None] - width / 2.0, v[:, None] - height / 2.0)
    radius = iris_radius * 0.5 * jnp.hypot(1.0 * width, 1.0 * height)
    iris = _inside(radius - from_middle, iris_radius >= 1.0, edge_px)
    return leakage + (1.0 - leakage) * along[:, None] * across[None] * iris


def scatter(
    primary: Image,
    field: Image,
    ratio: Scalar,
    reference_depth: Scalar,
    widths_mm: Float[Array, " gaussian"],
    shares: Float[Array, " gaussian"],
    pixel_spacing: Float[Array, "2"],
) -> Image:
    """Compute the scattered signal: a scatter potential convolved with a sum of Gaussians.

    `primary` P is the signal without scatter and `field` F the same without the body. With the
    -log transmission p = ln(F / P), the potential is ratio x (p / reference_depth)^1.5 x P:
    `ratio` is scatter / primary in the middle of a wide field behind 200 mm of water, whose p is
    `reference_depth`. The form follows Ohnesorge et al. (Eur. Radiol. 9, 1999); the power and the
    default kernel are fitted to a Monte Carlo simulation of water slabs behind an 8:1 grid
    (`experiments.fit_xray_scatter`). Widths are standard deviations on the detector in mm;
    `shares` are scaled to sum to 1. The beam ends at the image border, so no scatter enters from
    outside.
    """
    depth = jnp.log(jnp.maximum(field, 1e-12) / jnp.maximum(primary, 1e-12))
    growth = (jnp.maximum(depth, 0.0) / reference_depth) ** _SCATTER_POWER
    potential = ratio * growth * primary
    coarse_size, pixel = _coarse_grid(primary.shape, pixel_spacing)
    coarse = jax.image.resize(potential, coarse_size, "linear")
    total = jnp.zeros_like(coarse)
    for width_mm, share in zip(widths_mm, shares / jnp.sum(shares), strict=True):
        total = total + share * _blur(coarse, width_mm / pixel, keep_mean=False)
    return jax.image.resize(total, primary.shape, "linear")


def quantum_noise(
    signal: Image,
    quanta_per_reading: Image,
    photons_per_pixel: Scalar,
    *,
    key: PRNGKeyArray,
) -> Image:
    """Add quantum noise to a signal; the mean is unchanged.

    A reading x in open-beam units is N x mean quanta (N = `photons_per_pixel`). Quanta of many
    energies give compound Poisson noise of variance N x q with q >= 1 (`equivalent_quanta`). It is
    drawn as q times a Poisson number of mean N x / q, which has that mean and variance.
    """
    expected = photons_per_pixel * jnp.maximum(signal, 0.0) / quanta_per_reading
    counts = poisson(expected, key=key)
    return counts * quanta_per_reading / photons_per_pixel


GAUSSIAN_ABOVE = 60.0


def poisson(mean: Image, *, key: PRNGKeyArray) -> Image:
    """Draw Poisson numbers: exact up to a mean of 60; above it rounded normal numbers of the same
    mean and variance (the skewness, 0.13 at 60, is neglected)."""
    few, many = jax.random.split(key)
    is_few = mean <= GAUSSIAN_ABOVE
    exact = jax.random.poisson(few, jnp.where(is_few, mean, 0.0)).astype(mean.dtype)
    normal = mean + jnp.sqrt(mean) * jax.random.normal(many, mean.shape, mean.dtype)
    return jnp.where(is_few, exact, jnp.round(normal))


def equivalent_quanta(spectrum: Spectrum, transmission: Float[Array, "bin h w"]) -> Image:
    """Compute q = mean square energy / (mean energy x mean open-beam energy) of detected quanta.

    q is 1 where all quanta have the open beam's mean energy. A hardened beam has fewer quanta of
    higher energy, so q grows behind the body. q is 1 where nothing is transmitted.
    """
    mean_energy = 1.0 / jnp.sum(spectrum.weights / spectrum.energies_kev)
    signal = jnp.einsum("b,bhw->hw", spectrum.weights, transmission)
    squared = jnp.einsum("b,bhw->hw", spectrum.weights * spectrum.energies_kev, transmission)
    dark = signal <= 1e-30
    return jnp.where(dark, 1.0, squared / (mean_energy * jnp.where(dark, 1.0, signal)))


def detector_blur(signal: Image, blur_mm: Scalar, pixel_spacing: Float[Array, "2"]) -> Image:
    """Apply the Gaussian blur of scintillator and focal spot, integrated over pixels.

    `blur_mm` is a standard deviation on the detector. MTF(f) = exp(-2 (pi f blur)^2) times the
    MTF of the pixel. Applied after `quantum_noise`, it correlates the noise of neighbouring
    pixels, as the light spread of single quanta does. A uniform image is unchanged.
    """
    return _blur(signal, blur_mm / pixel_spacing, keep_mean=True)


def read_out(
    signal: Image,
    photons_per_pixel: Scalar,
    electronic_noise: Scalar,
    gain: Scalar,
    full_scale: Scalar,
    *,
    key: PRNGKeyArray,
) -> Image:
    """Digitise a signal to integers from 0 to `full_scale`: gain x (quanta + electronic noise).

    `electronic_noise` is the standard deviation of white noise in quanta; `gain` is in digital
    numbers per quantum. The rounding has no derivative.
    """
    noise = electronic_noise * jax.random.normal(key, signal.shape, signal.dtype)
    reading = gain * (photons_per_pixel * signal + noise)
    return jnp.clip(jnp.round(reading), 0.0, full_scale)


def log_transform(reading: Image, open_beam: Scalar) -> Image:
    """Compute -log(I / I0), dimensionless; a reading of 0 counts as one half."""
    return -jnp.log(jnp.maximum(reading, _HALF_READING) / open_beam)


def display_window(
    image: Image, *, percentiles: tuple[float, float] = (1.0, 99.0), bits: int = 8
) -> Image:
    """Convert an image to integer grey levels 0 to 2^bits - 1 for display, bone bright: linear
    between two percentiles of the image. A constant image becomes 0."""
    low, high = jnp.percentile(image, jnp.array(percentiles))
    span = jnp.where(high > low, high - low, 1.0)
    return jnp.round(jnp.clip((image - low) / span, 0.0, 1.0) * (2.0**bits - 1.0))


def _inside(distance: Array, is_open: Array, edge_px: Scalar) -> Array:
    """Smooth step over `edge_px`: 1 at positive distance, and 1 everywhere if open."""
    return jnp.where(is_open, 1.0, jax.nn.sigmoid(4.0 * distance / jnp.maximum(edge_px, 1e-3)))


_COARSE_PX = 64


def _coarse_grid(
    size: tuple[int, ...], pixel_spacing: Float[Array, "2"]
) -> tuple[tuple[int, int], Float[Array, "2"]]:
    """Image size of at most 64 pixels a side for images smooth over centimetres, and its pixel
    spacing in mm along (u, v)."""
    height, width = (min(side, _COARSE_PX) for side in size)
    return (height, width), pixel_spacing * jnp.array([size[1] / width, size[0] / height])


def _blur(image: Image, sigma_px: Float[Array, "2"], *, keep_mean: bool) -> Image:
    """Blur by two matrix products, with widths along u and v that may be traced."""
    across, along = (
        _blur_matrix(side, sigma, keep_mean=keep_mean)
        for side, sigma in ((image.shape[1], sigma_px[0]), (image.shape[0], sigma_px[1]))
    )
    exact = jax.lax.Precision.HIGHEST
    return jnp.matmul(jnp.matmul(along, image, precision=exact), across.T, precision=exact)


def _blur_matrix(side: int, sigma: Scalar, *, keep_mean: bool) -> Float[Array, "side side"]:
    """Share of a Gaussian centred in pixel j that falls into pixel i. With `keep_mean` rows sum
    to 1; without it the part outside the image is lost."""
    distance = jnp.arange(side)[:, None] - jnp.arange(side)[None].astype(jnp.float32)
    root = jnp.sqrt(2.0) * jnp.maximum(sigma, 1e-3)
    matrix = 0.5 * (erf((distance + 0.5) / root) - erf((distance - 0.5) / root))
    return matrix / jnp.sum(matrix, axis=1, keepdims=True) if keep_mean else matrix
