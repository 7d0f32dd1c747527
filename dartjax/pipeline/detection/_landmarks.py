"""Landmarks and fine masks of detected vertebrae, by the packaged network, in crops around them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import camera as cameras
from dartjax import data
from dartjax._progress import Step, no_step
from dartjax.camera import Camera
from dartjax.image import Radiograph, resample
from dartjax.models import LANDMARK_PAIRS, FoundLandmarks, detector_input
from dartjax.observations import Detection
from dartjax.pipeline._networks import landmark_network
from dartjax.pipeline._starts import detected_centers
from dartjax.pipeline.detection._detect import exposed_field
from dartjax.registration import CROP_PIXELS, CROP_WIDTH_MM, detected_crop

_AT_ONCE = 8
_MM_PER_PX = CROP_WIDTH_MM / CROP_PIXELS
_LARGEST_SIGMA_MM = 10.0  # a landmark that is less certain is not detected
_LEAST_MASK = 20  # cells; a smaller mask does not replace the one of the detector


def with_landmarks(
    radiographs: Sequence[Radiograph],
    detections: Sequence[Detection],
    places: Float[np.ndarray, "n 3"],
    *,
    weights: str,
    step: Step = no_step,
) -> list[Detection]:
    """Find the landmarks of detected vertebrae, and finer masks, in every view with a mask.

    `places` are their centres (world mm, in the patient's axes), at whose depth a crop is 110 mm
    wide. `weights` is a folder of `experiments.train_landmarks`.
    """
    find, scale = _finder(weights)
    fields = [
        Radiograph(jnp.asarray(exposed_field(np.asarray(r.image)), jnp.float32), r.camera)
        for r in radiographs
    ]
    crops = _crops(radiographs, detections, places)
    shown = [
        (resample(radiographs[k], crop).image, resample(fields[k], crop).image)
        for _, k, crop in crops
    ]
    found = _found(find, [(*images, _axes(c[2])) for images, c in zip(shown, crops, strict=True)])
    improved = list(detections)
    for (i, k, crop), answer, (_, exposed) in zip(crops, found, shown, strict=True):
        view = radiographs[k].camera
        improved[i] = _improved(improved[i], k, view, crop, answer, np.asarray(exposed), scale)
    step(f"{len(crops)} crops")
    return improved


@functools.cache
def _finder(weights: str) -> tuple[Callable[..., FoundLandmarks], float]:
    """Make the compiled network for a batch of crops, and the factor of its deviations that makes
    those of the validation right."""
    net, params = landmark_network(weights)
    card = data.read_card(weights)

    @jax.jit
    @jax.vmap
    def find(image: jax.Array, exposed: jax.Array, axes: jax.Array) -> FoundLandmarks:
        return net.apply({"params": params}, detector_input(image, exposed), axes)  # pyright: ignore[reportReturnType]

    return find, float(card["quality"]["error_in_sigma"])


def _crops(
    radiographs: Sequence[Radiograph],
    detections: Sequence[Detection],
    places: Float[np.ndarray, "n 3"],
) -> list[tuple[int, int, Camera]]:
    """Cameras of the crops: of each vertebra in each view that has a mask of it."""
    views = [radiograph.camera for radiograph in radiographs]
    crops = []
    for i, (detection, place) in enumerate(zip(detections, places, strict=True)):
        centers = detected_centers(detection, views)
        point = jnp.asarray(place, jnp.float32)
        for k in np.flatnonzero(np.isfinite(centers).all(-1)):
            crop = detected_crop(
                views[k], centers[k], point, width_mm=CROP_WIDTH_MM, num_pixels=CROP_PIXELS
            )
            crops.append((i, int(k), crop))
    return crops


def _axes(view: Camera) -> jax.Array:
    return view.camera_from_world.rotation().as_matrix()


def _found(
    find: Callable[..., FoundLandmarks], shown: Sequence[tuple[jax.Array, ...]]
) -> list[FoundLandmarks]:
    """Run the network in batches of one size, of which the last one repeats its last crop."""
    found: list[FoundLandmarks] = []
    for first in range(0, len(shown), _AT_ONCE):
        part = list(shown[first : first + _AT_ONCE])
        padded = part + part[-1:] * (_AT_ONCE - len(part))
        answers = jax.device_get(find(*(jnp.stack(column) for column in zip(*padded, strict=True))))
        found += [jax.tree.map(lambda leaf, i=i: leaf[i], answers) for i in range(len(part))]
    return found


def _improved(
    detection: Detection,
    k: int,
    view: Camera,
    crop: Camera,
    found: FoundLandmarks,
    exposed: np.ndarray,
    scale: float,
) -> Detection:
    """Put what was found in one crop into the detection of its vertebra."""
    pixels = np.asarray(found.landmarks, float)
    sigma = scale * _MM_PER_PX * np.exp(np.asarray(found.log_sigma, float))
    column, row = np.clip(pixels.astype(int), 0, CROP_PIXELS - 1).T
    seen = (sigma <= _LARGEST_SIGMA_MM) & (exposed[row, column] > 0.5)
    for pair, logit in zip(LANDMARK_PAIRS, np.asarray(found.swapped), strict=True):
        if logit > 0.0:
            left, right = pair
            pixels[[left, right]] = pixels[[right, left]]
            sigma[[left, right]], seen[[left, right]] = sigma[[right, left]], seen[[right, left]]
    landmarks, sigmas = detection.landmarks.copy(), detection.sigma.copy()
    landmarks[k] = cameras.reproject(pixels, crop, view)
    sigmas[k] = np.where(seen, sigma, np.inf)
    masks = list(detection.masks)
    mask = np.asarray(jax.nn.sigmoid(found.mask))
    if (mask > 0.5).sum() >= _LEAST_MASK:
        masks[k] = Radiograph(jnp.asarray(mask), cameras.resize(crop, mask.shape))
    return dataclasses.replace(detection, landmarks=landmarks, sigma=sigmas, masks=tuple(masks))
