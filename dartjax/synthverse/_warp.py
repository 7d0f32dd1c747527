"""Smooth random displacement fields: cubic B-splines on a coarse lattice of normal numbers."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from dartjax.synthverse._solids import Coordinates, Field

MIN_JACOBIAN = 0.25


class Warp(NamedTuple):
    """A displacement field of several length scales about a centre, mm.

    Lattice i of `lattices`, (3, a, b, c), has knots every `knots_mm[i]`, the middle knot at the
    centre. Beyond the lattice the displacement decreases to 0.
    """

    lattices: tuple[Float[np.ndarray, "3 a b c"], ...]
    knots_mm: tuple[float, ...]


def random_warp(
    rng: np.random.Generator, scales: tuple[tuple[float, float], ...], reach_mm: float = 80.0
) -> Warp:
    """Draw a sum of independent warps of (length scale mm, rms displacement mm per axis).

    The warp is halved until x + u(x) has a Jacobian determinant above 0.25 everywhere (no folds).
    """
    lattices = []
    for length, amplitude in scales:
        count = 2 * int(np.ceil(reach_mm / length)) + 5
        # A cubic B-spline of white noise has (0.479)^(3/2) of its standard deviation.
        noise = rng.standard_normal((3, count, count, count)) * amplitude / 0.332
        lattices.append(noise.astype(np.float32))
    warp = Warp(tuple(lattices), tuple(length for length, _ in scales))
    while smallest_jacobian(warp, reach_mm) < MIN_JACOBIAN:
        warp = Warp(tuple(0.5 * lattice for lattice in warp.lattices), warp.knots_mm)
    return warp


def displacement(warp: Warp, x: Field, y: Field, z: Field) -> Coordinates:
    """Compute the displacement in a box given by its three axes (n,), shape (i, j, k) each."""
    total = np.zeros((3, len(x), len(y), len(z)), np.float32)
    for lattice, length in zip(warp.lattices, warp.knots_mm, strict=True):
        weights = [_weights(axis, length, lattice.shape[1]) for axis in (x, y, z)]
        part = np.einsum("dabc,kc->dabk", lattice, weights[2], optimize=True)
        part = np.einsum("dabk,jb->dajk", part, weights[1], optimize=True)
        total += np.einsum("dajk,ia->dijk", part, weights[0], optimize=True)
    return total[0], total[1], total[2]


def smallest_jacobian(warp: Warp, reach_mm: float, step_mm: float = 4.0) -> float:
    """Compute the smallest determinant of d(x + u)/dx on a grid of `step_mm`."""
    axis = np.arange(-reach_mm, reach_mm + step_mm, step_mm, dtype=np.float32)
    slopes = np.empty((3, 3, len(axis), len(axis), len(axis)), np.float32)
    for i, part in enumerate(displacement(warp, axis, axis, axis)):
        slopes[i] = np.gradient(part, step_mm)
        slopes[i, i] += 1.0
    return float(np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1))).min())


def _weights(axis: Field, length: float, count: int) -> Float[np.ndarray, "n knot"]:
    position = np.asarray(axis, np.float64) / length + 0.5 * (count - 1)
    distance = np.abs(position[:, None] - np.arange(count)[None])
    near = 2.0 / 3.0 - distance**2 + 0.5 * distance**3
    far = np.clip(2.0 - distance, 0.0, None) ** 3 / 6.0
    return np.where(distance < 1.0, near, far).astype(np.float32)


def noise_block(
    rng: np.random.Generator, sigma: float | tuple[float, ...], size: int = 96
) -> Float[np.ndarray, "a b c"]:
    """Draw a periodic block of smooth noise of unit variance; index it modulo its size."""
    block = ndimage.gaussian_filter(
        rng.standard_normal((size, size, size), np.float32), sigma, mode="wrap"
    )
    return (block / block.std()).astype(np.float32)
