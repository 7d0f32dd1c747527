"""Hounsfield units of bone over soft tissue, and the scanner: slices, blur and noise."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int16, UInt8
from scipy import ndimage

from dartjax.data import whole_hu
from dartjax.synthverse._bones import Placed
from dartjax.synthverse._grid import Grid
from dartjax.synthverse._warp import noise_block


@dataclasses.dataclass(frozen=True)
class Bone:
    """Bone density of a person. Trabecular HU fall from about 250 at 20 years to 80 at 80 (Jang
    2019, Radiology 291:360, L1 of 20,374 adults: 226 +- 44 below 30 years, 2.5 HU less a year)."""

    trabecular_hu: float
    cortical_hu: float
    cortex_mm: float
    others: float  # density of ribs, shoulders and pelvis relative to the mean


def draw_bone(rng: np.random.Generator, age: float) -> Bone:
    """Draw bone density and cortical thickness of a person of an age."""
    trabecular = 250.0 - 2.7 * (age - 20.0) + 30.0 * rng.standard_normal()
    thin = np.clip((age - 40.0) / 50.0, 0.0, 1.0)
    return Bone(
        trabecular_hu=float(np.clip(trabecular, 30.0, 330.0)),
        cortical_hu=float(np.clip(rng.normal(1000.0 - 140.0 * thin, 80.0), 600.0, 1200.0)),
        cortex_mm=float(np.clip(rng.normal(1.1 - 0.3 * thin, 0.12), 0.5, 1.5)),
        others=float(np.clip(rng.normal(1.0, 0.25), 0.5, 1.6)),
    )


def lay_bone(
    hu: Float[np.ndarray, "i j k"],
    placed: Placed,
    grid: Grid,
    bone: Bone,
    rng: np.random.Generator,
) -> None:
    """Paint vertebrae and other bones over soft tissue, in place: a cortical shell and inside it
    trabecular bone with vertical texture; edges have partial volume."""
    coarse = noise_block(rng, (1.3, 1.3, 2.2))
    fine = noise_block(rng, 0.8)
    spongy_others = bone.others * (0.75 * bone.trabecular_hu + 25.0)
    for distance, cortex, inside in (
        (placed.other_bones, (0.4 + 0.55 * bone.others) * bone.cortex_mm, spongy_others),
        (placed.vertebrae, bone.cortex_mm, bone.trabecular_hu),
    ):
        where = np.flatnonzero(distance < 0.75 * grid.spacing)
        i, j, k = np.unravel_index(where, grid.shape)
        n = len(coarse)
        texture = coarse[i % n, j % n, k % n]
        speckle = fine[k % n, i % n, j % n]
        d = distance.ravel()[where]
        thick = np.float32(cortex) * (1.0 + 0.3 * np.clip(texture, -1.5, 1.5))
        spongy = np.float32(inside) * (1.0 + 0.22 * texture + 0.12 * speckle)
        dense = np.float32(bone.cortical_hu) * (1.0 + 0.07 * speckle)
        filled = np.clip(0.5 - d / np.float32(grid.spacing), 0.0, 1.0)
        deep = np.clip(0.5 - (d + thick) / np.float32(1.3 * grid.spacing), 0.0, 1.0)
        mineral = dense + deep * (spongy - dense)
        flat = hu.reshape(-1)
        flat[where] += filled * (mineral - flat[where])


@dataclasses.dataclass(frozen=True)
class Scan:
    """Settings of the scanner: slices of `slices` voxels thickness and distance, noise in HU."""

    slices: int
    noise_hu: float
    kernel_mm: float  # blur in the slice


def scan(
    hu: Float[np.ndarray, "i j k"],
    labels: UInt8[np.ndarray, "i j k"],
    grid: Grid,
    settings: Scan,
    rng: np.random.Generator,
) -> tuple[Int16[np.ndarray, "i j m"], UInt8[np.ndarray, "i j m"], Float[np.ndarray, "4 4"]]:
    """Simulate a scan: CT, labels and world_from_voxel on the grid's axes.

    A thick slice is the mean of its voxels; its label is that of the middle. Noise is correlated
    and higher in the middle of the trunk."""
    blurred = hu
    sigma = settings.kernel_mm / grid.spacing
    for axis in (0, 1):
        blurred = ndimage.gaussian_filter1d(blurred, sigma, axis=axis, truncate=2.5)
    count = hu.shape[2] // settings.slices
    if settings.slices > 1:
        kept = blurred[:, :, : count * settings.slices]
        blurred = kept.reshape(*hu.shape[:2], count, settings.slices).mean(3)
        labels = labels[:, :, settings.slices // 2 :: settings.slices][:, :, :count]
    _add_noise(blurred, grid, settings, rng)
    affine = np.diag([grid.spacing, grid.spacing, grid.spacing * settings.slices, 1.0])
    affine[:3, 3] = grid.origin
    affine[2, 3] += 0.5 * grid.spacing * (settings.slices - 1)
    return whole_hu(blurred), np.ascontiguousarray(labels), affine


def _add_noise(hu: Float[np.ndarray, "i j m"], grid: Grid, settings: Scan, rng) -> None:
    """Add noise in place, slice by slice: more in the middle of the trunk, less in the air."""
    nx, ny, _ = hu.shape
    x = np.linspace(-1.0, 1.0, nx, dtype=np.float32)[:, None]
    y = np.linspace(-1.0, 1.0, ny, dtype=np.float32)[None]
    level = settings.noise_hu * (0.55 + 0.6 * np.exp(-1.6 * (x * x + y * y)))
    for k in range(hu.shape[2]):
        white = rng.standard_normal((nx + 2, ny + 2), np.float32)
        # Filtered back-projection noise: correlated at distance 1, anticorrelated at distance 2.
        mixed = white[1:-1, 1:-1] + 0.45 * (white[2:, 1:-1] + white[1:-1, 2:])
        mixed -= 0.12 * (white[:-2, 1:-1] + white[1:-1, :-2])
        hu[:, :, k] += level * mixed / np.float32(1.20)
