"""Measurement of radiograph noise and its power spectrum. Host functions in NumPy."""

import numpy as np
from jaxtyping import Float


def noise_of_pair(
    first: Float[np.ndarray, "h w"], second: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "m n"]:
    """Extract the noise of two radiographs that differ only in their noise, in the middle half:
    their difference / sqrt(2), which is free of anatomy."""
    height, width = first.shape
    middle = np.s_[height // 4 : -(height // 4), width // 4 : -(width // 4)]
    return (first[middle] - second[middle]) / np.sqrt(2.0)


def noise_power_spectrum(
    noise: Float[np.ndarray, "h w"], pixel_mm: float
) -> tuple[Float[np.ndarray, " band"], Float[np.ndarray, " band"]]:
    """Compute the radial noise power spectrum |DFT|^2 dx dy / (N M), mm^2, of the largest square
    of the noise, and its spatial frequencies (1/mm, up to Nyquist)."""
    side = min(noise.shape)
    square = noise[:side, :side] - noise[:side, :side].mean()
    power = np.abs(np.fft.fft2(square)) ** 2 * pixel_mm**2 / side**2
    axis = np.fft.fftfreq(side, pixel_mm)
    radius = np.hypot(axis[:, None], axis[None])
    edges = np.linspace(0.0, 0.5 / pixel_mm, side // 4 + 1)
    band = np.digitize(radius.ravel(), edges) - 1
    kept = band < len(edges) - 1
    sums = np.bincount(band[kept], power.ravel()[kept], len(edges) - 1)
    counts = np.bincount(band[kept], minlength=len(edges) - 1)
    return 0.5 * (edges[1:] + edges[:-1]), sums / np.maximum(counts, 1)


def noise_power_ratio(power: Float[np.ndarray, " band"]) -> float:
    """Compute the ratio of low-frequency to high-frequency noise power.

    1 for white noise, above 1 where blur correlates the noise. `power` is that of
    `noise_power_spectrum`."""
    return float(power[1:5].mean() / power[-8:].mean())
