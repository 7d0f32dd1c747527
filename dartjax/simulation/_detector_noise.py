"""Noise model of a landmark and a segmentation network, on the host.

The model replaces the networks with simulated detections: landmarks with errors and approximate
confidences, misses, outliers, left/right swaps in lateral views, and masks of varying quality. The
defaults follow the networks of Spine-DART (arXiv 2512.05803): masks of Dice .89 on simulated
X-rays, and three common landmarks in 82 % of random view pairs, which corresponds to a landmark
detected in 63 % of the views.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax import camera as cameras
from dartjax.camera import Camera
from dartjax.observations import NUM_LANDMARKS, PARTNER
from dartjax.simulation._disturbed import disturbed_mask


@dataclasses.dataclass(frozen=True)
class Detector:
    """Noise model of a landmark and a segmentation network. Lengths in mm at the vertebra."""

    landmark_mm: float = 3.0  # median standard deviation per axis
    landmark_spread: float = 0.3  # log-normal spread of the standard deviation over landmarks
    confidence_spread: float = 0.25  # log-normal spread of reported over true deviation
    miss_rate: float = 0.37  # probability that a landmark is not detected in a view
    outlier_rate: float = 0.03  # probability of an error of `outlier_mm` with unchanged confidence
    outlier_mm: float = 20.0
    swap_rate: float = 0.25  # probability of a left/right swap in a lateral view
    mask_dice: float = 0.89  # mean
    mask_dice_spread: float = 0.04  # standard deviation
    mask_miss_rate: float = 0.02  # probability of an empty mask


STRESS = Detector(landmark_mm=6.0, miss_rate=0.5, outlier_rate=0.08, swap_rate=0.5, mask_dice=0.82)


def detect_landmarks(
    landmarks_world: Float[np.ndarray, "10 3"] | Float[Array, "10 3"],
    view: Camera,
    detector: Detector,
    rng: np.random.Generator,
    *,
    lateral: bool,
) -> tuple[Float[np.ndarray, "10 2"], Float[np.ndarray, " 10"]]:
    """Simulate the detected landmarks of one view.

    Returns their pixels and the reported standard deviations (mm; inf = missed). `lateral` marks a
    view in which left and right overlap, so that they may be swapped.
    """
    points = jnp.asarray(landmarks_world, jnp.float32)
    pixels = np.asarray(cameras.project(view, points), float)
    px_per_mm = (
        np.asarray(view.focal_length)[None] / np.asarray(cameras.depth(view, points))[:, None]
    )
    true_sigma = detector.landmark_mm * np.exp(
        detector.landmark_spread * rng.normal(size=NUM_LANDMARKS)
    )
    error = true_sigma[:, None] * rng.normal(size=(NUM_LANDMARKS, 2))
    direction = rng.uniform(0.0, 2.0 * np.pi, NUM_LANDMARKS)
    outlier_error = detector.outlier_mm * np.stack([np.cos(direction), np.sin(direction)], axis=1)
    is_outlier = rng.random(NUM_LANDMARKS) < detector.outlier_rate
    pixels = pixels + px_per_mm * (error + np.where(is_outlier[:, None], outlier_error, 0.0))
    reported = true_sigma * np.exp(detector.confidence_spread * rng.normal(size=NUM_LANDMARKS))
    missed = rng.random(NUM_LANDMARKS) < detector.miss_rate
    if lateral and rng.random() < detector.swap_rate:
        pixels = pixels[list(PARTNER)]
    return pixels, np.where(missed, np.inf, reported)


def detect_mask(
    mask: Bool[np.ndarray, "h w"],
    detector: Detector,
    rng: np.random.Generator,
    *,
    correlation_px: float,
) -> Bool[np.ndarray, "h w"]:
    """Simulate the detected mask of a vertebra: a mask with a disturbed boundary.

    Its Dice is drawn from the detector's distribution; the mask is empty for a missed vertebra.
    """
    if rng.random() < detector.mask_miss_rate:
        return np.zeros_like(mask)
    dice = rng.normal(detector.mask_dice, detector.mask_dice_spread)
    return disturbed_mask(
        mask, rng, float(np.clip(dice, 0.6, max(0.98, detector.mask_dice))), correlation_px
    )


def is_lateral(view: Camera) -> bool:
    """Return whether the beam is within 30 degrees of the patient's left-right axis."""
    return bool(abs(float(view.beam[0])) > np.cos(np.pi / 6.0))
