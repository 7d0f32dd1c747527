"""Bodies of the labelled vertebrae, and what a view shows of each vertebra.

The body is what an opening of the label with a ball leaves: pedicles, arch and processes are
thinner than the body.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy import ndimage
from skimage import measure

from dartjax import camera as cameras
from dartjax._types import Pixels, Points
from dartjax.camera import Camera

_POINTS = 400  # of a vertebra, and of its body
_BALL = 0.7  # radius of the opening over that of the largest ball in the vertebra


class VertebraPoints(NamedTuple):
    """Random points of each vertebra and of its body, and the centroid of the body; world mm."""

    solid: Float[np.ndarray, "vertebra point 3"]
    body: Float[np.ndarray, "vertebra point 3"]
    center: Float[np.ndarray, "vertebra 3"]


class ProjectedBodies(NamedTuple):
    """What one view shows of each vertebra. Pixels; NaN behind the source."""

    center: Float[np.ndarray, "vertebra 2"]  # of the body
    box: Float[np.ndarray, "vertebra 4"]  # around the body, u0 v0 u1 v1; may leave the image
    exposed: Float[np.ndarray, " vertebra"]  # share of the vertebra in the open field


def vertebra_points(
    labels: np.ndarray, affine: Float[np.ndarray, "4 4"], wanted: list[int]
) -> VertebraPoints:
    """Draw points of every wanted label of an image, always the same ones."""
    boxes = ndimage.find_objects(labels, max_label=max(wanted))
    parts = [_points_of(labels, boxes[label - 1], label, affine) for label in wanted]
    return VertebraPoints(*(np.stack(column) for column in zip(*parts, strict=True)))


def _points_of(
    labels: np.ndarray, box: tuple[slice, ...], label: int, affine: Float[np.ndarray, "4 4"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inside = labels[box] == label
    body = vertebral_body(inside, np.linalg.norm(affine[:3, :3], axis=0))
    first = np.array([side.start for side in box])
    rng = np.random.default_rng(label)

    def world(mask: np.ndarray) -> np.ndarray:
        return (np.argwhere(mask) + first) @ affine[:3, :3].T + affine[:3, 3]

    solid, of_body = world(inside), world(body)
    drawn = [points[rng.integers(len(points), size=_POINTS)] for points in (solid, of_body)]
    return drawn[0], drawn[1], of_body.mean(0)


def vertebral_body(
    inside: Bool[np.ndarray, "i j k"], spacing: Float[np.ndarray, "3"]
) -> Bool[np.ndarray, "i j k"]:
    """Separate the body from a vertebra: the opening with a ball of 0.7 of the radius of the
    largest ball inside, of which the largest part counts. `spacing` in mm."""
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing))
    radius = _BALL * depth.max()
    parts = np.asarray(measure.label(depth >= radius))
    largest = 1 + np.argmax(np.bincount(parts.reshape(-1))[1:])
    away = np.asarray(ndimage.distance_transform_edt(parts != largest, sampling=spacing))
    grown = away < radius + spacing.max()  # half a voxel is lost at either surface
    return grown[1:-1, 1:-1, 1:-1] & inside


def project_bodies(
    points: VertebraPoints, camera: Camera, open_field: Float[np.ndarray, "4"]
) -> ProjectedBodies:
    """Project the bodies of all vertebrae into one view."""
    count = len(points.center)
    stacked = np.concatenate([points.solid, points.body, points.center[:, None]], axis=1)
    pixels, depth = (np.asarray(a) for a in _projected(camera, stacked.reshape(-1, 3)))
    pixels = np.where(depth[:, None] > 0.0, pixels, np.nan).reshape(count, -1, 2)
    solid, body = pixels[:, :_POINTS], pixels[:, _POINTS:-1]
    inside = ((solid >= open_field[:2]) & (solid <= open_field[2:])).all(-1)
    box = np.concatenate([body.min(1), body.max(1)], axis=-1)
    return ProjectedBodies(pixels[:, -1], box, inside.mean(1))


@jax.jit
def _projected(camera: Camera, points: Points) -> tuple[Pixels, Float[Array, " n"]]:
    return cameras.project(camera, points), cameras.depth(camera, points)
