"""Check the geometry of a set of views."""

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import camera as cameras_module
from dartjax._errors import DataError
from dartjax.camera import Camera
from dartjax.image import Volume

MIN_ANGLE_DEG = 20.0
SAME_FOCAL_LENGTH = 1e-3  # relative, of K and the sdd: pixels of 1 mm, or K in mm
MAX_OFFSET_SHARE = 0.05  # of the image, of the principal point from the middle


def angle_between(first: Camera, second: Camera) -> float:
    """Compute the angle between two central beams in degrees, 0 to 180.

    Opposed beams, 180 deg apart, show the same silhouette mirrored.
    """
    cosine = np.asarray(first.beam, np.float64) @ np.asarray(second.beam, np.float64)
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def check_views(
    cameras: Sequence[Camera], body: Volume | Float[np.ndarray, "3"] | None = None
) -> list[str]:
    """Check a set of views and return warnings.

    `body` is the CT, or a world point in the vertebra (mm). With one view, or beams less than
    20 deg from parallel, depth is poorly known; this gives a warning, as does a K that looks like
    mm (pixels of 1 mm and a principal point away from the middle). DataError for no view, an
    X-ray source inside the CT's box, a body behind the source or beyond the detector, and a point
    outside the image.
    """
    if not cameras:
        raise DataError("no view: give at least one camera with its image")
    for number, camera in enumerate(cameras, 1):
        if isinstance(body, Volume):
            _check_source_outside(number, camera, body)
            _check_depth(number, camera, np.asarray(body.center))
        elif body is not None:
            _check_depth(number, camera, body)
            _check_in_image(number, camera, body)
    doubts = [d for number, camera in enumerate(cameras, 1) if (d := _doubtful(number, camera))]
    if len(cameras) == 1:
        return [*doubts, "only one view: the position along its beam is nearly unknown"]
    pairs = itertools.combinations(enumerate(cameras, 1), 2)
    angles = [(angle_between(a, b), i, j) for (i, a), (j, b) in pairs]
    near = [pair for pair in angles if angle_from_parallel(pair[0]) < MIN_ANGLE_DEG]
    return [*doubts, *(_near_parallel(*pair) for pair in near)]


def _doubtful(number: int, camera: Camera) -> str:
    """Return a sentence if K may be in mm: its focal length is the sdd, so that pixels are 1 mm."""
    focal = np.asarray(camera.focal_length, np.float64)
    if np.abs(focal / float(camera.sdd) - 1.0).max() > SAME_FOCAL_LENGTH:
        return ""
    height, width = camera.image_size
    u, v = np.asarray(camera.principal_point, np.float64)
    offset = max(abs(u / width - 0.5), abs(v / height - 0.5))
    if offset <= MAX_OFFSET_SHARE:
        return ""
    return (
        f"view {number}: the focal length of K equals the sdd and the principal point "
        f"({u:.0f}, {v:.0f}) is far from the middle of the {width} x {height} image: K may be in "
        "mm, divide its entries by the pixel spacing"
    )


def angle_from_parallel(angle_deg: float) -> float:
    """Compute how far two beams at an angle (degrees, 0 to 180) are from parallel or opposed."""
    return min(angle_deg, 180.0 - angle_deg)


def _near_parallel(angle_deg: float, first: int, second: int) -> str:
    return (
        f"views {first} and {second} are {angle_deg:.0f} deg apart, nearly parallel: depth is "
        f"poorly known (use 20 to 160 deg)"
    )


def _check_source_outside(number: int, camera: Camera, volume: Volume) -> None:
    affine = np.asarray(volume.world_from_voxel, np.float64)
    voxel = np.linalg.solve(affine, np.append(np.asarray(camera.source), 1.0))[:3]
    if ((voxel > -0.5) & (voxel < np.array(volume.values.shape) - 0.5)).all():
        place = np.round(np.asarray(camera.source), 1).tolist()
        raise DataError(
            f"view {number}: the X-ray source at {place} mm lies inside the body (the CT's box): "
            "check source_to_isocenter and isocenter, and that poses are camera_from_world in mm"
        )


def _check_depth(number: int, camera: Camera, point: Float[np.ndarray, "3"]) -> None:
    depth = float(cameras_module.depth(camera, jnp.asarray(point)[None])[0])
    if not 0.0 < depth < float(camera.sdd):
        side = "behind the source" if depth <= 0.0 else "beyond the detector"
        raise DataError(
            f"view {number}: the body lies {side} ({depth:.0f} mm along the beam, sdd "
            f"{float(camera.sdd):.0f} mm): check that the pose is camera_from_world, in mm, RAS+"
        )


def _check_in_image(number: int, camera: Camera, point: Float[np.ndarray, "3"]) -> None:
    u, v = np.asarray(cameras_module.project(camera, jnp.asarray(point)[None])[0])
    height, width = camera.image_size
    if not (0.0 <= u <= width and 0.0 <= v <= height):
        raise DataError(
            f"view {number}: the vertebra projects to pixel ({u:.0f}, {v:.0f}), outside the "
            f"{width} x {height} image: check the camera or the start position"
        )
