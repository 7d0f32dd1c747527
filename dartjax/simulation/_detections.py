"""Simulated detections of a vertebra in radiographs, by the noise model of a detector."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from dartjax import camera as cameras
from dartjax.camera import Camera
from dartjax.image import Radiograph
from dartjax.observations import NUM_LANDMARKS, Detection
from dartjax.registration import CROP_PIXELS, CROP_WIDTH_MM
from dartjax.simulation._detector_noise import (
    STRESS,
    Detector,
    detect_landmarks,
    detect_mask,
    is_lateral,
)
from dartjax.simulation._ground_truth import TrueVertebra, true_masks

DETECTORS = {"standard": Detector(), "stress": STRESS}
_WINDOW_PIXELS = 160  # contains the mask of a vertebra, at the resolution of a crop
_WINDOW_MM = CROP_WIDTH_MM * _WINDOW_PIXELS / CROP_PIXELS
_MASK_CORRELATION_MM = 6.0  # correlation length of the errors along a mask's boundary


def detect(
    truth: TrueVertebra,
    radiographs: Sequence[Radiograph],
    detector: Detector,
    rng: np.random.Generator,
) -> Detection:
    """Simulate the detection of one vertebra: landmarks and masks in every radiograph.

    Nothing is detected outside a radiograph. Without trusted true landmarks, none are detected.
    """
    views = [r.camera for r in radiographs]
    middle = jnp.asarray(np.mean(np.asarray(truth.surface.vertices), axis=0), jnp.float32)
    # A mask is stored in a window around the vertebra to save time; it is empty outside.
    windows = [
        cameras.region_around(view, middle, width_mm=_WINDOW_MM, num_pixels=_WINDOW_PIXELS)
        for view in views
    ]
    masks = []
    for mask, window, view in zip(true_masks(truth, windows), windows, views, strict=True):
        grid = np.asarray(cameras.pixel_centers(window), float)
        seen = mask & _inside(cameras.reproject(grid, window, view), view)
        correlation_px = _MASK_CORRELATION_MM * CROP_PIXELS / CROP_WIDTH_MM
        found = detect_mask(seen, detector, rng, correlation_px=correlation_px)
        masks.append(Radiograph(jnp.asarray(found, jnp.float32), window))
    pixels = np.zeros((len(views), NUM_LANDMARKS, 2))
    sigma = np.full((len(views), NUM_LANDMARKS), np.inf)
    if truth.landmarks is not None:
        for k, view in enumerate(views):
            pixels[k], reported = detect_landmarks(
                truth.landmarks, view, detector, rng, lateral=is_lateral(view)
            )
            sigma[k] = np.where(_inside(pixels[k], view), reported, np.inf)
    return Detection(pixels, sigma, tuple(masks))


def _inside(pixels: Float[np.ndarray, "*n 2"], view: Camera) -> Bool[np.ndarray, "*n"]:
    height, width = view.image_size
    return np.asarray(((pixels >= 0.0) & (pixels <= np.array([width, height]))).all(-1))
