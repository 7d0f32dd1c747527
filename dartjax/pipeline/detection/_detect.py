"""Detection of vertebrae in whole radiographs by the packaged network."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from dartjax import camera as cameras
from dartjax import data
from dartjax._progress import Step, no_step
from dartjax.camera import Camera
from dartjax.image import Radiograph, resample
from dartjax.models import (
    FoundVertebrae,
    VertebraDetector,
    box_overlaps,
    detector_input,
)
from dartjax.pipeline._networks import detector_folder, detector_network

DETECTED = 0.5  # score of a detection on its own
DOUBTFUL = 0.12  # score of a detection that counts if another view agrees
_LONG = 1.4  # ratio of the sides above which an image is searched in square tiles
_PART = 0.6  # side of a magnified part, in sides of the field
_STEP = 0.5  # between tiles, in sides of a tile
_CUT = 0.15  # of a tile's side, beside a border where vertebrae are cut off
_SAME = 0.5  # IoU of two bodies found in neighbouring tiles
_GROWN = 0.15  # of a box at every side, for the window of its mask
_INSIDE = 0.99  # share of a pixel that is exposed, above which all of it is
_FLAT = 1e-3  # range of a line of pixels outside the field, in ranges of the image


@dataclasses.dataclass(frozen=True)
class ViewDetections:
    """Vertebrae found in one radiograph, from top to bottom; pixels of the radiograph."""

    score: Float[np.ndarray, " n"]  # 0 to 1; .5 is the threshold of the best F1
    box: Float[np.ndarray, "n 4"]
    body_box: Float[np.ndarray, "n 4"]
    center: Float[np.ndarray, "n 2"]  # of the body
    log_level: Float[np.ndarray, "n level"]  # log probability of models.DETECTED_LEVELS
    masks: Float[np.ndarray, "n m m"]  # probability, in the cells of the box
    sacrum: float  # probability that the sacrum is in view

    def __len__(self) -> int:
        return len(self.score)

    def mask_of(self, index: int, view: Camera) -> Radiograph:
        """Place a mask in a window of the radiograph with camera `view`, empty around it; all
        empty if the index is -1, not found."""
        cells = self.masks.shape[-1]
        margin = round(_GROWN * cells)
        side = cells + 2 * margin
        image = np.zeros((side, side), np.float32)
        if index < 0:
            nothing = dataclasses.replace(view, image_size=(side, side))
            return Radiograph(jnp.asarray(image), nothing)
        image[margin:-margin, margin:-margin] = self.masks[index]
        low, high = self.box[index, :2], self.box[index, 2:]
        per_pixel = cells / (high - low)
        corner = jnp.asarray(low - margin / per_pixel, jnp.float32)
        scale = jnp.asarray(per_pixel, jnp.float32)
        window = dataclasses.replace(
            cameras.crop(view, corner, (side, side)),
            focal_length=view.focal_length * scale,
            principal_point=(view.principal_point - corner) * scale,
        )
        return Radiograph(jnp.asarray(image), window)


def detect(
    radiographs: Sequence[Radiograph],
    *,
    weights: str | None = None,
    least_score: float = DETECTED,
    step: Step = no_step,
) -> list[ViewDetections]:
    """Find the vertebrae in every radiograph, each on its own.

    Images of any size and grey convention, with the patient's head up. A radiograph is searched as
    a whole and in four magnified parts, a long one in overlapping square tiles. `weights` is a
    folder of `experiments.train_detector` (None: the packaged ones). The score .5 is the threshold
    of the best F1 on the validation of the network; lower ones are doubtful detections. An image
    without a vertebra gives no detections.
    """
    net, find = _finder(weights)
    threshold = float(data.read_card(detector_folder(weights))["threshold"])
    found = []
    for radiograph in radiographs:
        inside = exposed_field(np.asarray(radiograph.image))
        field = Radiograph(jnp.asarray(inside, jnp.float32), radiograph.camera)
        windows = _windows(inside, radiograph.camera, net.config.image_size)
        parts = [_find_in(radiograph, field, window, find) for window in windows]
        found.append(_merged([_rescaled(part, threshold) for part in parts], least_score))
        step(f"{len(found[-1])} vertebrae")
    return found


def _rescaled(found: ViewDetections, threshold: float) -> ViewDetections:
    """Shift the log odds of the scores, so that the threshold becomes .5."""
    odds = found.score / np.maximum(1.0 - found.score, 1e-6) * (1.0 - threshold) / threshold
    return dataclasses.replace(found, score=odds / (1.0 + odds))


def exposed_field(image: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Find the exposed field: the image without the rows and columns of one grey value at its
    borders, which a collimator leaves. All of an image that is flat everywhere."""
    image = np.asarray(image, float)
    least = _FLAT * float(np.ptp(image))
    inside = np.zeros(image.shape, bool)
    rows, columns = (np.flatnonzero(np.ptp(image, axis=axis) > least) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return np.ones(image.shape, bool)
    inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return inside


@functools.cache
def _finder(
    weights: str | None,
) -> tuple[VertebraDetector, Callable[..., FoundVertebrae]]:
    net, params = detector_network(weights)

    @jax.jit
    def find(image: jax.Array, exposed: jax.Array) -> FoundVertebrae:
        return net.apply({"params": params}, detector_input(image, exposed))  # pyright: ignore[reportReturnType]

    return net, find


class _Window(NamedTuple):
    """A square part of a radiograph that is searched. A vertebra counts if its centre is in
    `accepted` (px of the radiograph): near the border of a part it is cut off, and another part
    shows it whole."""

    camera: Camera
    accepted: Float[np.ndarray, "4"]


def _windows(field: Bool[np.ndarray, "h w"], view: Camera, size: int) -> list[_Window]:
    """Parts, seen by cameras of `size` px a side, in which the exposed field of a radiograph is
    searched: one around it and four magnified ones, or a row of overlapping ones along a long
    field."""
    rows, columns = np.flatnonzero(field.any(1)), np.flatnonzero(field.any(0))
    low = np.array([columns[0], rows[0]], float)
    sides = np.array([columns[-1] + 1, rows[-1] + 1]) - low
    if sides.max() <= _LONG * sides.min():
        whole = sides.max()
        first = low + 0.5 * (sides - whole)
        parts = [(first, int(whole))]
        side = int(_PART * whole)
        places = (np.array([u, v]) for u in (0.0, 1.0) for v in (0.0, 1.0))
        parts += [(first + (whole - side) * place, side) for place in places]
    else:
        side, axis = int(sides.min()), int(np.argmax(sides))
        count = int(np.ceil((sides.max() - side) / (_STEP * side))) + 1
        along = np.linspace(0.0, sides.max() - side, count)
        parts = [(low + at * np.eye(2)[axis], side) for at in along]
    windows = []
    for corner, side in parts:
        part = cameras.crop(view, jnp.asarray(corner, jnp.float32), (side, side))
        # The border of the part that is not one of the field.
        first = np.where(corner > low + 0.5, corner + _CUT * side, -np.inf)
        last = np.where(corner + side < low + sides - 0.5, corner + (1.0 - _CUT) * side, np.inf)
        windows.append(_Window(cameras.resize(part, (size, size)), np.concatenate([first, last])))
    return windows


def _find_in(
    radiograph: Radiograph,
    field: Radiograph,
    window: _Window,
    find: Callable[..., FoundVertebrae],
) -> ViewDetections:
    """Find the vertebrae in one part, and convert their pixels to those of the radiograph. `field`
    is 1 where the radiograph is exposed."""
    exposed = (resample(field, window.camera).image > _INSIDE).astype(jnp.float32)
    found = jax.device_get(find(resample(radiograph, window.camera).image, exposed))

    def full(pixels: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        pairs = np.asarray(pixels, float).reshape(len(pixels), -1, 2)
        moved = cameras.reproject(pairs, window.camera, radiograph.camera)
        return moved.reshape(len(pixels), -1)

    center, (first, last) = full(found.center), np.split(window.accepted, 2)
    accepted = ((center >= first) & (center <= last)).all(1)
    valid = np.flatnonzero(found.valid & accepted)
    return ViewDetections(
        score=found.score[valid],
        box=full(found.box)[valid],
        body_box=full(found.body_box)[valid],
        center=center[valid],
        log_level=found.log_level[valid],
        masks=found.mask[valid],
        sacrum=float(found.sacrum),
    )


def _merged(parts: Sequence[ViewDetections], least_score: float) -> ViewDetections:
    """Join the detections of all windows, without duplicates, from top to bottom."""
    names = [field.name for field in dataclasses.fields(ViewDetections) if field.name != "sacrum"]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    score, bodies = joined["score"], joined["body_box"]
    overlap = np.asarray(box_overlaps(jnp.asarray(bodies), jnp.asarray(bodies)))
    kept: list[int] = []
    for i in np.argsort(-score, kind="stable"):
        if score[i] >= least_score and not any(overlap[i, j] > _SAME for j in kept):
            kept.append(int(i))
    kept.sort(key=lambda i: joined["center"][i, 1])
    sacrum = max(part.sacrum for part in parts)
    return ViewDetections(**{name: joined[name][kept] for name in names}, sacrum=sacrum)
