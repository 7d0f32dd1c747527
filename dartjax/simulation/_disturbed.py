"""Disturbed observations: ground truth with errors of a given size, on the host.

The standard protocol: the true pose is translated by 5 mm (standard deviation per axis) and rotated
by 7 degrees about a random axis; ten landmarks have 3 mm noise per axis; the boundary of the
vertebra's mask in each view is disturbed until its Dice with the true mask is 0.90.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from dartjax import transforms
from dartjax.image import Radiograph
from dartjax.observations import Observations
from dartjax.registration import CROP_PIXELS, CROP_WIDTH_MM, crop_cameras, observe
from dartjax.simulation._ground_truth import TrueVertebra, true_masks


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """Sizes of the errors of disturbed observations."""

    translation_mm: float = 5.0  # standard deviation per axis
    rotation_deg: float = 7.0  # angle about a uniformly random axis
    landmark_mm: float = 3.0  # standard deviation per axis
    mask_dice: float = 0.90


def disturbed_pose(
    T_world_vertebra: transforms.SE3, rng: np.random.Generator, disturbance: Disturbance
) -> transforms.SE3:
    """Draw a pose near the true one, rotated and translated."""
    axis = rng.normal(size=3)
    turn = np.deg2rad(disturbance.rotation_deg) * axis / np.linalg.norm(axis)
    shift = rng.normal(size=3) * disturbance.translation_mm
    return transforms.perturb(
        T_world_vertebra, jnp.asarray(turn, jnp.float32), jnp.asarray(shift, jnp.float32)
    )


def disturbed_mask(
    mask: np.ndarray, rng: np.random.Generator, target_dice: float, noise_px: float
) -> np.ndarray:
    """Disturb the boundary of a mask (h, w bool) by a smooth random field.

    The field has the correlation length `noise_px`. Its amplitude is chosen so that the Dice with
    the true mask is `target_dice` (to 0.002). An empty mask stays empty.
    """
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


def disturbed_observations(
    truth: TrueVertebra,
    radiographs: Sequence[Radiograph],
    rng: np.random.Generator,
    disturbance: Disturbance,
) -> tuple[Observations, transforms.SE3]:
    """Draw a start pose, and observations of a vertebra with the errors of `disturbance`."""
    start = disturbed_pose(truth.pose, rng, disturbance)
    center = start.apply(jnp.mean(truth.model.mean_shape, axis=0))
    crops = crop_cameras(
        [r.camera for r in radiographs], center, width_mm=CROP_WIDTH_MM, num_pixels=CROP_PIXELS
    )
    noise_px = 6.0 * CROP_PIXELS / CROP_WIDTH_MM
    masks = np.stack(
        [
            disturbed_mask(mask, rng, disturbance.mask_dice, noise_px)
            for mask in true_masks(truth, crops)
        ]
    )
    error = rng.normal(size=(10, 3)) * disturbance.landmark_mm
    seen = None if truth.landmarks is None else truth.landmarks + jnp.asarray(error, jnp.float32)
    observations = observe(
        radiographs,
        crops,
        masks=masks,
        landmarks_world=seen,
        landmark_sigma_mm=disturbance.landmark_mm,
    )
    return observations, start
