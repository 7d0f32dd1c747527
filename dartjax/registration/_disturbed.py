"""Disturbed observations: a known truth with errors of a stated size, on the host.

The standard protocol of every table: the true pose moved by 5 mm (standard deviation per
axis) and turned by 7 degrees about a random axis; ten landmarks with 3 mm noise per axis;
this vertebra's mask in each view with its boundary disturbed until its Dice with the true
mask is 0.90.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage

from dartjax import camera as cameras
from dartjax import transforms
from dartjax._types import Image, Point
from dartjax.camera import Camera
from dartjax.image import Radiograph, resample
from dartjax.observations import NUM_LANDMARKS, Observations


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """Sizes of the errors."""

    translation_mm: float = 5.0  # standard deviation per axis
    rotation_deg: float = 7.0  # angle about a uniformly random axis
    landmark_mm: float = 3.0  # standard deviation per axis
    mask_dice: float = 0.90


def disturbed_pose(
    T_world_vertebra: transforms.SE3, rng: np.random.Generator, disturbance: Disturbance
) -> transforms.SE3:
    """The true pose, turned and shifted."""
    axis = rng.normal(size=3)
    turn = np.deg2rad(disturbance.rotation_deg) * axis / np.linalg.norm(axis)
    shift = rng.normal(size=3) * disturbance.translation_mm
    return transforms.perturb(
        T_world_vertebra, jnp.asarray(turn, jnp.float32), jnp.asarray(shift, jnp.float32)
    )


def disturbed_mask(
    mask: np.ndarray, rng: np.random.Generator, target_dice: float, noise_px: float
) -> np.ndarray:
    """A mask (h, w bool) whose boundary is moved by a smooth random field (correlation
    length `noise_px`) just so far that its Dice with the true one is `target_dice`
    (to 0.002). An empty mask stays empty."""
    if not mask.any():
        return mask
    inside, outside = (np.asarray(ndimage.distance_transform_edt(m)) for m in (mask, ~mask))
    signed = inside - outside
    field = ndimage.gaussian_filter(rng.normal(size=mask.shape), noise_px)
    field = field / field.std()

    def moved(amplitude: float) -> np.ndarray:
        return signed + amplitude * field > 0.0

    low, high = 0.0, float(max(mask.shape))
    for _ in range(40):
        middle = 0.5 * (low + high)
        overlap = 2.0 * (moved(middle) & mask).sum() / (moved(middle).sum() + mask.sum())
        low, high = (middle, high) if overlap > target_dice else (low, middle)
    return moved(low)


def crop_cameras(
    views: Sequence[Camera], center: Point, *, width_mm: float, num_pixels: int
) -> list[Camera]:
    """The region of interest of one vertebra in every view."""
    return [
        cameras.region_around(view, center, width_mm=width_mm, num_pixels=num_pixels)
        for view in views
    ]


def observe(
    radiographs: Sequence[Radiograph],
    crops: Sequence[Camera],
    *,
    masks: Float[np.ndarray, "view h w"] | None = None,
    landmarks_world: Float[Array, "10 3"] | None = None,
    landmark_sigma_mm: float = 3.0,
) -> Observations:
    """Gather the evidence on one vertebra: radiographs resampled to their crops, masks on
    the crops' grids, and landmarks (world mm) projected into them. What is not given is
    marked as unknown."""
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
    """1 where a pixel of the crop comes from the radiograph alone."""
    everywhere = Radiograph(jnp.ones_like(radiograph.image), radiograph.camera)
    return (resample(everywhere, crop).image > 0.99).astype(radiograph.image.dtype)
