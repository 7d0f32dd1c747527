"""Observations of one vertebra: crops of the radiographs around it, with masks and landmarks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax import camera as cameras
from dartjax._types import Image, Point
from dartjax.camera import Camera
from dartjax.image import Radiograph, resample
from dartjax.observations import NUM_LANDMARKS, Observations


def crop_cameras(
    views: Sequence[Camera], center: Point, *, width_mm: float, num_pixels: int
) -> list[Camera]:
    """Make the camera of a crop around `center` (world mm) in every view: `num_pixels` pixels that
    show `width_mm` at the depth of the centre."""
    return [
        cameras.region_around(view, center, width_mm=width_mm, num_pixels=num_pixels)
        for view in views
    ]


def mask_centroid(
    mask: Float[np.ndarray, "h w"], grid: Camera, view: Camera
) -> Float[np.ndarray, "2"]:
    """Compute the centroid of a mask on the grid of a crop, in pixels of the whole view; NaN for an
    empty mask. Host."""
    if not mask.any():
        return np.full(2, np.nan)
    pixels = np.asarray(cameras.pixel_centers(grid), float).reshape(-1, 2)
    middle = np.average(pixels, axis=0, weights=mask.reshape(-1))
    return cameras.reproject(middle, grid, view)


def detected_crop(
    view: Camera,
    center: Float[np.ndarray, "2"],
    place: Point,
    *,
    width_mm: float,
    num_pixels: int,
) -> Camera:
    """Make the camera of the crop of a detected vertebra: around its `center` in the view (px), at
    the depth of its approximate position `place` (world mm). If `center` is NaN, around `place`."""
    middle = place
    if np.isfinite(center).all():
        pixel = jnp.asarray(center, jnp.float32)[None]
        middle = cameras.back_project(view, pixel, cameras.depth(view, place[None]))[0]
    return cameras.region_around(view, middle, width_mm=width_mm, num_pixels=num_pixels)


def observe(
    radiographs: Sequence[Radiograph],
    crops: Sequence[Camera],
    *,
    masks: Bool[np.ndarray, "view h w"] | Float[np.ndarray, "view h w"] | None = None,
    landmarks_world: Float[Array, "10 3"] | None = None,
    landmark_sigma_mm: float = 3.0,
) -> Observations:
    """Make the observations of one vertebra: radiographs resampled to the crops, masks on the
    grids of the crops, and landmarks (world mm) projected into the crops. Masks and landmarks
    that are not given are marked as unknown."""
    pairs = list(zip(radiographs, crops, strict=True))
    images = [resample(r, c).image for r, c in pairs]
    exposed = [_recorded(r, c) for r, c in pairs]
    num_views = len(crops)
    if landmarks_world is None:
        pixels = jnp.zeros((num_views, NUM_LANDMARKS, 2))
        sigma = jnp.full((num_views, NUM_LANDMARKS), jnp.inf)
    else:
        pixels = jnp.stack([cameras.project(c, landmarks_world) for c in crops])
        sigma = jnp.full((num_views, NUM_LANDMARKS), landmark_sigma_mm)
    unknown = jnp.zeros((num_views, *crops[0].image_size))
    return Observations(
        cameras=jax.tree.map(lambda *leaves: jnp.stack(leaves), *crops),
        images=jnp.stack(images),
        exposed=jnp.stack(exposed),
        masks=unknown if masks is None else jnp.asarray(masks, jnp.float32),
        landmarks=pixels,
        landmark_sigma=sigma,
        view_valid=jnp.ones(num_views, bool),
    )


def _recorded(radiograph: Radiograph, crop: Camera) -> Image:
    """Mark with 1 the pixels of the crop that lie inside the radiograph."""
    everywhere = Radiograph(jnp.ones_like(radiograph.image), radiograph.camera)
    return (resample(everywhere, crop).image > 0.99).astype(radiograph.image.dtype)
