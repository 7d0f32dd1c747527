"""Sums of Gaussians on the detector, with three back-ends.

image[c, v, u] = sum_i weights[i, c] N((u, v); mean_i, covariance_i)

Attenuation adds up along a ray, so nothing is sorted or composited and all shapes are static.
- dense: every Gaussian at every pixel. The reference; memory n x h x w.
- windowed: a K x K window per Gaussian, with its own VJP that recomputes the windows instead
  of storing them. Work n K^2, independent of the image size.
- separable: sums of outer products as matrix products. A tilted Gaussian is expanded by
  Mehler's formula in powers of its correlation: exact for rank -> infinity, accurate for
  |correlation| below about 0.5 at rank 6, wrong for strongly elongated Gaussians.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from dartjax.render._projection import DetectorGaussians

Weights = Float[Array, "n c"]
Channels = Float[Array, "c h w"]


def accumulate_dense(
    gaussians: DetectorGaussians, weights: Weights, image_size: tuple[int, int]
) -> Channels:
    """Evaluate every Gaussian at every pixel centre. Reference for the other back-ends."""
    conic, normalized = conic_form(gaussians, weights)
    height, width = image_size
    dx = jnp.arange(width)[None, :] + 0.5 - gaussians.mean[:, :1]
    dy = jnp.arange(height)[None, :] + 0.5 - gaussians.mean[:, 1:]
    return jnp.einsum("nhw,nc->chw", gaussian(conic, dx, dy), normalized)


def accumulate_windowed(
    gaussians: DetectorGaussians, weights: Weights, image_size: tuple[int, int], window: int
) -> Channels:
    """Add a `window` x `window` patch of pixels per Gaussian into the image.

    The part outside the window is lost: use a window of at least 6 sigma of the widest splat (in
    px), which cuts it at 1 % of the peak. Gaussians outside the image draw nothing.
    """
    conic, normalized = conic_form(gaussians, weights)
    size = min(window, *image_size)
    summed: Any = _add_windows(image_size, size, gaussians.mean, conic, normalized)
    return jnp.moveaxis(summed, -1, 0)


def accumulate_separable(
    gaussians: DetectorGaussians, weights: Weights, image_size: tuple[int, int], rank: int
) -> Channels:
    """Sum Gaussians as matrix products of one-dimensional profiles, with `rank` terms of Mehler's
    expansion N2(x, y; rho) = phi(x) phi(y) sum_k rho^k He_k(x) He_k(y) / k!."""
    height, width = image_size
    sigma = jnp.sqrt(gaussians.covariance[:, ::2])
    rho = gaussians.covariance[:, 1] / (sigma[:, 0] * sigma[:, 1])
    along_u = _hermite_profiles(gaussians.mean[:, 0], sigma[:, 0], width, rank)
    along_v = _hermite_profiles(gaussians.mean[:, 1], sigma[:, 1], height, rank)
    powers = rho[None, :] ** jnp.arange(rank)[:, None]
    rows = (along_v * powers[:, :, None]).reshape(-1, height)
    columns = along_u.reshape(-1, width)
    per_term = jnp.tile(weights, (rank, 1))
    return jnp.stack([(rows * w[:, None]).T @ columns for w in per_term.T])


def _hermite_profiles(
    center: Float[Array, " n"], sigma: Float[Array, " n"], size: int, rank: int
) -> Float[Array, "k n size"]:
    """Evaluate phi(x) He_k(x) / sqrt(k!) / sigma at the pixel centres, x in units of sigma."""
    x = (jnp.arange(size)[None, :] + 0.5 - center[:, None]) / sigma[:, None]
    terms = [jnp.exp(-0.5 * x * x) / (jnp.sqrt(2.0 * jnp.pi) * sigma[:, None])]
    for k in range(1, rank):
        # He_k / sqrt(k!) = (x He_{k-1} - (k-1) He_{k-2}) / sqrt(k!), as a stable recurrence.
        previous = terms[k - 2] * ((k - 1) / k) ** 0.5 if k > 1 else jnp.zeros_like(x)
        terms.append(x * terms[k - 1] / k**0.5 - previous)
    return jnp.stack(terms)


def conic_form(
    gaussians: DetectorGaussians, weights: Weights
) -> tuple[Float[Array, "n 3"], Weights]:
    """Compute inverse covariances, and weights times the normalisation 1 / (2 pi sqrt(det))."""
    uu, uv, vv = gaussians.covariance.T
    determinant = uu * vv - uv**2
    conic = jnp.stack([vv, -uv, uu], axis=1) / determinant[:, None]
    return conic, weights / (2.0 * jnp.pi * jnp.sqrt(determinant))[:, None]


def gaussian(
    conic: Float[Array, "n 3"], dx: Float[Array, "n kx"], dy: Float[Array, "n ky"]
) -> Float[Array, "n ky kx"]:
    """Evaluate exp(-q / 2) on the grid of pixel offsets of each Gaussian."""
    a, b, c = (conic[:, i, None, None] for i in range(3))
    x, y = dx[:, None, :], dy[:, :, None]
    return jnp.exp(-0.5 * (a * x * x + c * y * y) - b * (x * y))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _add_windows(
    image_size: tuple[int, int],
    size: int,
    mean: Float[Array, "n 2"],
    conic: Float[Array, "n 3"],
    weights: Weights,
) -> Float[Array, "h w c"]:
    origin, dx, dy = _window_grid(image_size, size, mean)
    patches = gaussian(conic, dx, dy)[..., None] * weights[:, None, None, :]
    dimensions = lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2, 3), inserted_window_dims=(), scatter_dims_to_operand_dims=(0, 1)
    )
    empty = jnp.zeros((*image_size, weights.shape[1]), patches.dtype)
    return lax.scatter_add(empty, origin, patches, dimensions, mode="promise_in_bounds")


def _window_grid(
    image_size: tuple[int, int], size: int, mean: Float[Array, "n 2"]
) -> tuple[Int[Array, "n 2"], Float[Array, "n k"], Float[Array, "n k"]]:
    """Compute the upper left (row, column) of each window and its pixel offsets from the mean."""
    limit = jnp.array(image_size) - size
    wanted = jnp.round(mean[:, ::-1] - size / 2.0)
    # Clipped in float first: a splat far outside the image must not overflow the integer.
    origin = jnp.clip(wanted, 0.0, limit.astype(mean.dtype)[None]).astype(jnp.int32)
    steps = jnp.arange(size) + 0.5
    dy = origin[:, :1] + steps[None] - mean[:, 1:]
    dx = origin[:, 1:] + steps[None] - mean[:, :1]
    return origin, dx, dy


def _add_windows_fwd(image_size, size, mean, conic, weights):  # pyright: ignore
    return _add_windows(image_size, size, mean, conic, weights), (mean, conic, weights)


def _add_windows_bwd(image_size, size, saved, cotangent):  # pyright: ignore
    mean, conic, weights = saved
    origin, dx, dy = _window_grid(image_size, size, mean)
    dimensions = lax.GatherDimensionNumbers(
        offset_dims=(1, 2), collapsed_slice_dims=(), start_index_map=(0, 1)
    )
    cotangent_windows = [
        lax.gather(channel, origin, dimensions, (size, size), mode="promise_in_bounds")
        for channel in jnp.moveaxis(cotangent, -1, 0)
    ]
    kernel = gaussian(conic, dx, dy)
    weights_bar = jnp.stack([jnp.sum(kernel * p, axis=(1, 2)) for p in cotangent_windows], axis=1)
    slope = kernel * sum(weights[:, c, None, None] * p for c, p in enumerate(cotangent_windows))
    _, sx, sy, sxx, sxy, syy = _window_moments(slope, dx[:, 0], dy[:, 0])
    a, b, c = conic.T
    mean_bar = jnp.stack([a * sx + b * sy, b * sx + c * sy], axis=1)
    conic_bar = jnp.stack([-0.5 * sxx, -sxy, -0.5 * syy], axis=1)
    return mean_bar, conic_bar, weights_bar


def _window_moments(
    field: Float[Array, "n k k"], x0: Float[Array, " n"], y0: Float[Array, " n"]
) -> tuple[Float[Array, " n"], ...]:
    """Compute the moments 1, x, y, xx, xy, yy of each window about its Gaussian's mean.

    All windows share one pixel grid, so the moments are one matrix product on that grid,
    shifted afterwards; x0, y0 are the offsets of the first pixel from the mean.
    """
    size = field.shape[1]
    steps = jnp.arange(size, dtype=field.dtype) - (size - 1) / 2.0
    y, x = (grid.reshape(-1) for grid in jnp.meshgrid(steps, steps, indexing="ij"))
    monomials = jnp.stack([jnp.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    # The default matmul precision of accelerators is too low for these sums.
    product = jnp.matmul(field.reshape(-1, size * size), monomials, precision=lax.Precision.HIGHEST)
    s, mx, my, mxx, mxy, myy = product.T
    dx, dy = x0 - steps[0], y0 - steps[0]
    return (
        s,
        mx + dx * s,
        my + dy * s,
        mxx + 2 * dx * mx + dx * dx * s,
        mxy + dx * my + dy * mx + dx * dy * s,
        myy + 2 * dy * my + dy * dy * s,
    )


_add_windows.defvjp(_add_windows_fwd, _add_windows_bwd)
