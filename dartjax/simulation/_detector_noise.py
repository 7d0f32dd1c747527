"""What a landmark and a segmentation network would say of a known vertebra, on the host.

A stand-in for the networks behind the same `Observations`: landmarks with errors that the
network knows roughly, misses, gross errors, sides exchanged in lateral views, and masks of
varying quality. Defaults follow what Spine-DART reports of its networks (arXiv 2512.05803): masks
of Dice .89 on simulated X-rays, and three common landmarks in 82 % of random view pairs, which
needs a landmark to be found in 63 % of the views.
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
    """Error model of a pair of networks. Lengths in mm at the vertebra."""

    landmark_mm: float = 3.0  # median standard deviation per axis
    landmark_spread: float = 0.3  # of the standard deviation between landmarks, log-normal
    confidence_spread: float = 0.25  # of the reported about the true deviation, log-normal
    miss: float = 0.37  # chance that a landmark is not found in a view
    gross: float = 0.03  # chance of an error of `gross_mm` that the network is sure of
    gross_mm: float = 20.0
    exchanged: float = 0.25  # chance that a view seen from the side has left and right exchanged
    mask_dice: float = 0.89
    mask_dice_spread: float = 0.04
    mask_miss: float = 0.02


STRESS = Detector(landmark_mm=6.0, miss=0.5, gross=0.08, exchanged=0.5, mask_dice=0.82)


def detect_landmarks(
    landmarks_world: Float[np.ndarray, "10 3"] | Float[Array, "10 3"],
    view: Camera,
    detector: Detector,
    rng: np.random.Generator,
    *,
    lateral: bool,
) -> tuple[Float[np.ndarray, "10 2"], Float[np.ndarray, " 10"]]:
    """Pixels in this view and the standard deviations the network reports (mm; inf = missed).

    `lateral` says that left and right overlap in this view, so that they may be exchanged.
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
    away = detector.gross_mm * np.stack([np.cos(direction), np.sin(direction)], axis=1)
    is_gross = rng.random(NUM_LANDMARKS) < detector.gross
    pixels = pixels + px_per_mm * (error + np.where(is_gross[:, None], away, 0.0))
    reported = true_sigma * np.exp(detector.confidence_spread * rng.normal(size=NUM_LANDMARKS))
    missed = rng.random(NUM_LANDMARKS) < detector.miss
    if lateral and rng.random() < detector.exchanged:
        pixels = pixels[list(PARTNER)]
    return pixels, np.where(missed, np.inf, reported)


def detect_mask(
    mask: Bool[np.ndarray, "h w"],
    detector: Detector,
    rng: np.random.Generator,
    *,
    correlation_px: float,
) -> Bool[np.ndarray, "h w"]:
    """The mask with its boundary disturbed to a Dice drawn about the detector's; empty when the
    vertebra was missed."""
    if rng.random() < detector.mask_miss:
        return np.zeros_like(mask)
    dice = rng.normal(detector.mask_dice, detector.mask_dice_spread)
    return disturbed_mask(
        mask, rng, float(np.clip(dice, 0.6, max(0.98, detector.mask_dice))), correlation_px
    )


def is_lateral(view: Camera) -> bool:
    """Is the beam within 30 degrees of the patient's left-right axis?"""
    return bool(abs(float(view.beam[0])) > np.cos(np.pi / 6.0))
