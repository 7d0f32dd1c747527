"""Volumes and radiographs: sampled images with their geometry in the world frame."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from skimage import measure

from dartjax._types import Image, Matrix4, Point
from dartjax.camera import Camera


class Volume(eqx.Module):
    """A scalar field on a regular grid with a full affine (oblique and anisotropic allowed).

    `values[i, j, k]` is the sample at `world_from_voxel @ (i, j, k, 1)` in RAS+ mm: integer
    indices are voxel CENTRES, as in NIfTI. Attenuation volumes are in 1/mm.
    """

    values: Float[Array, "i j k"]
    world_from_voxel: Matrix4

    @property
    def center(self) -> Point:
        """World position of the middle of the grid, mm."""
        middle = (jnp.array(self.values.shape, float) - 1.0) / 2.0
        return self.world_from_voxel[:3, :3] @ middle + self.world_from_voxel[:3, 3]


class Radiograph(eqx.Module):
    """An X-ray as a line-integral image (dimensionless, 0 = no attenuation) with its camera."""

    image: Image
    camera: Camera


def resample(radiograph: Radiograph, camera: Camera) -> Radiograph:
    """Resample a radiograph into a crop or a resized version of its own camera.

    Both cameras must share source and orientation (see `camera.crop`, `region_around`).
    Antialiased linear interpolation; outside the image the value is 0.
    """
    scale = camera.focal_length / radiograph.camera.focal_length
    shift = camera.principal_point - radiograph.camera.principal_point * scale
    image = jax.image.scale_and_translate(
        radiograph.image,
        shape=camera.image_size,
        spatial_dims=(0, 1),
        scale=scale[::-1],
        translation=shift[::-1],
        method="linear",
        antialias=True,
    )
    return Radiograph(image, camera)


def gaussian_blur(image: Image, sigma_px: float, *, truncate: float = 3.0) -> Image:
    """Blur an image with a separable Gaussian and zero padding. `sigma_px` is static; 0 returns
    the image unchanged."""
    if sigma_px <= 0.0:
        return image
    radius = max(1, round(truncate * sigma_px))
    offsets = jnp.arange(-radius, radius + 1)
    kernel = jnp.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = kernel / jnp.sum(kernel)
    blurred = _convolve_rows(image, kernel, radius)
    return _convolve_rows(blurred.T, kernel, radius).T


def _convolve_rows(image: Image, kernel: Float[Array, " k"], radius: int) -> Image:
    # A sum of shifted rows: faster on CPU than a general convolution of a single channel.
    padded = jnp.pad(image, ((radius, radius), (0, 0)))
    height = image.shape[0]
    return sum(kernel[i] * padded[i : i + height] for i in range(2 * radius + 1))  # pyright: ignore


def silhouette_contours(
    mask: Bool[np.ndarray, "h w"] | Float[np.ndarray, "h w"], level: float = 0.5
) -> list[Float[np.ndarray, "n 2"]]:
    """Extract outlines of a mask or soft silhouette in [0, 1] as closed polylines (u, v) px. Host.

    Marching squares at `level`. A silhouette cut by the image border is closed along that
    border. An empty mask gives an empty list.
    """
    padded = np.pad(np.asarray(mask, np.float64), 1)
    rows_columns = measure.find_contours(padded, level)
    # Index 1 of the padded image is the first pixel, whose centre is at 0.5.
    return [contour[:, ::-1] - 0.5 for contour in rows_columns]
