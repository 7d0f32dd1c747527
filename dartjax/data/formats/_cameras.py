"""Read and write cameras and initial estimates of vertebrae as JSON.

docs/input_formats.md shows every form.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import camera as cameras_module
from dartjax import transforms
from dartjax._arrays import PathLike
from dartjax._errors import DataError
from dartjax.anatomy import LABEL_OF_LEVEL, unknown_name
from dartjax.camera import Camera
from dartjax.data._atomic import publish_file
from dartjax.data.formats._json import (
    array_of,
    check_keys,
    number_in,
    read_json,
    rotation_of,
)
from dartjax.observations import LANDMARK_NAMES
from dartjax.transforms import SE3

_MATRIX_KEYS = ("K", "camera_from_world", "sdd", "image_size")
_CARM_KEYS = ("sdd", "source_to_isocenter", "isocenter", "pixel_spacing", "image_size")
_ANGLE_KEYS = ("primary_deg", "secondary_deg")
_ANY_FORM = (*_MATRIX_KEYS, *_CARM_KEYS[1:4], *_ANGLE_KEYS, "in_plane_deg", "view", "name")


@dataclasses.dataclass(frozen=True)
class InitialEstimate:
    """Initial estimate of one vertebra's pose: a centre, or 3D landmarks, and its orientation."""

    center_world: Float[np.ndarray, "3"] | None  # body centroid, mm
    axes_world: Float[np.ndarray, "3 3"]  # columns: its right, anterior, superior axes
    landmarks_world: dict[str, Float[np.ndarray, "3"]]  # by LANDMARK_NAMES, mm
    level: str | None = None


def load_cameras(path: PathLike) -> list[Camera]:
    """Load cameras from a JSON file: a list of objects, or {"cameras": [...]}, one per image.

    Each object gives a camera by matrix (`K`, `camera_from_world`, `sdd`, `image_size`), by
    C-arm angles (`primary_deg`, `secondary_deg`, optional `in_plane_deg`) or by a named `view`
    (AP, PA, LAT_L, LAT_R). The last two forms also need `sdd`, `source_to_isocenter`, `isocenter`,
    `pixel_spacing` and `image_size`. Units are mm and deg, the world is RAS+. DataError, with the
    camera and the key, for an unknown key, a pose that is not rigid, and numbers that look like
    other units.
    """
    data = read_json(path)
    if isinstance(data, dict) and "cameras" in data:
        check_keys(str(path), data, ["cameras"], [])
        data = data["cameras"]
    entries = [data] if isinstance(data, dict) else data
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: a list of cameras is needed, one object per image")
    return [_camera(f"{path}: camera {i}", entry) for i, entry in enumerate(entries, 1)]


def save_cameras(path: PathLike, cameras: Sequence[Camera]) -> None:
    """Write cameras in the format of `load_cameras`, in the order of their images."""
    _write(path, [camera_entry(camera) for camera in cameras])


def camera_entry(camera: Camera, name: str | None = None) -> dict[str, Any]:
    """Convert a camera to the JSON object of `load_cameras`, exact in float32."""
    entry = {
        "K": _shortest(camera.intrinsics),
        "camera_from_world": _shortest(camera.camera_from_world.as_matrix()),
        "sdd": _shortest(camera.sdd),
        "image_size": list(camera.image_size),
    }
    return entry if name is None else {"name": name, **entry}


def save_starts(path: PathLike, poses: Mapping[str, SE3]) -> None:
    """Write start poses by level (T_world_vertebra, mm) in the format of `load_starts`."""
    entries = [
        {
            "level": level,
            "center_world": _shortest(pose.translation()),
            "axes_world": _shortest(pose.rotation().as_matrix()),
        }
        for level, pose in poses.items()
    ]
    _write(path, entries)


def _write(path: PathLike, entries: list[dict[str, Any]]) -> None:
    text = json.dumps(entries, indent=1) + "\n"
    publish_file(pathlib.Path(path), lambda partial: partial.write_text(text, "utf-8"))


def _shortest(values: Any) -> Any:
    """Convert float32 numbers to the shortest decimals that represent them exactly."""
    array = np.asarray(values, np.float32)
    shortest = [float(np.format_float_positional(v, unique=True)) for v in array.reshape(-1)]
    return np.reshape(shortest, array.shape).tolist()


def load_starts(path: PathLike) -> dict[str, InitialEstimate]:
    """Load the initial estimates of a patient's vertebrae by level.

    The JSON file holds a list of objects in the form of `load_init`, each with its `level`, or one
    such object. DataError, with the object and the key, for an invalid object, a missing level, and
    a level that occurs twice.
    """
    content = read_json(path)
    entries = content if isinstance(content, list) else [content]
    starts: dict[str, InitialEstimate] = {}
    for number, entry in enumerate(entries, 1):
        where = f"{path}: vertebra {number}"
        start = _initial(where, entry)
        if start.level is None:
            raise DataError(f'{where}: give its level, such as "level": "L3"')
        if start.level in starts:
            raise DataError(f"{where}: {start.level} occurs twice")
        starts[start.level] = start
    if not starts:
        raise DataError(f"{path}: the list is empty: one object per vertebra is needed")
    return starts


def load_init(path: PathLike) -> InitialEstimate:
    """Load the initial estimate of one vertebra's pose from JSON; mm, world RAS+.

    The object has `center_world` [x, y, z] or `landmarks_world` {name: [x, y, z]} with at least
    three of the ten landmarks. Optional are `level` and the orientation: `axes_world` (3 x 3,
    columns right, anterior, superior) or `rotation_deg` [x, y, z] (about world x, then y, then z).
    """
    return _initial(str(path), read_json(path))


def _initial(where: str, entry: Any) -> InitialEstimate:
    optional = ["center_world", "landmarks_world", "axes_world", "rotation_deg", "level"]
    check_keys(where, entry, [], optional)
    if "center_world" not in entry and "landmarks_world" not in entry:
        raise DataError(f"{where}: give center_world or landmarks_world")
    if "axes_world" in entry and "rotation_deg" in entry:
        raise DataError(f"{where}: give axes_world or rotation_deg, not both")
    center = entry.get("center_world")
    level = entry.get("level")
    if level is not None and (not isinstance(level, str) or level not in LABEL_OF_LEVEL):
        raise DataError(f"{where}: {unknown_name('level', str(level), list(LABEL_OF_LEVEL))}")
    return InitialEstimate(
        center_world=None if center is None else array_of(f"{where}: center_world", center, (3,)),
        axes_world=_axes(where, entry),
        landmarks_world=_landmarks(f"{where}: landmarks_world", entry.get("landmarks_world")),
        level=level,
    )


def _camera(where: str, entry: Any) -> Camera:
    if isinstance(entry, dict):
        for key in entry:
            if key not in _ANY_FORM:
                raise DataError(f"{where}: {unknown_name('key', key, _ANY_FORM)}")
        if "K" in entry or "camera_from_world" in entry:
            return _camera_of_matrix(where, entry)
        if "view" in entry:
            check_keys(where, entry, ["view", *_CARM_KEYS], ["name"])
            return _camera_of_carm(where, entry, _named_rotation(where, entry["view"]))
    check_keys(where, entry, [*_ANGLE_KEYS, *_CARM_KEYS], ["in_plane_deg", "name"])
    return _camera_of_carm(where, entry, _carm_rotation(where, entry))


def _camera_of_matrix(where: str, entry: dict[str, Any]) -> Camera:
    check_keys(where, entry, _MATRIX_KEYS, ["name"])
    K = array_of(f"{where}: K", entry["K"], (3, 3))
    pose = array_of(f"{where}: camera_from_world", entry["camera_from_world"], (4, 4))
    if not np.allclose(K[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]], [0, 0, 0, 0, 1]) or K[0, 0] <= 0:
        raise DataError(f"{where}: K must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels")
    if not np.allclose(pose[3], [0, 0, 0, 1]):
        raise DataError(f"{where}: camera_from_world: the last row must be 0 0 0 1")
    pose[:3, :3] = rotation_of(f"{where}: camera_from_world", pose[:3, :3])
    sdd = number_in(f"{where}: sdd", entry["sdd"], 300.0, 3000.0, "mm")
    for axis in (0, 1):
        spacing = sdd / K[axis, axis]
        number_in(f"{where}: pixel spacing sdd / f", float(spacing), 0.05, 3.0, "mm")
    T_camera_world = transforms.from_matrix(jnp.asarray(pose, jnp.float32))
    size = _image_size(where, entry)
    return cameras_module.from_intrinsics(jnp.asarray(K, jnp.float32), T_camera_world, sdd, size)


def _camera_of_carm(where: str, entry: dict[str, Any], rotation: transforms.SO3) -> Camera:
    spacing = entry["pixel_spacing"]
    pair = spacing if isinstance(spacing, list) and len(spacing) == 2 else [spacing, spacing]
    du, dv = (number_in(f"{where}: pixel_spacing", d, 0.05, 3.0, "mm") for d in pair)
    sdd = number_in(f"{where}: sdd", entry["sdd"], 300.0, 3000.0, "mm")
    isocenter = array_of(f"{where}: isocenter", entry["isocenter"], (3,))
    return cameras_module.from_carm(
        rotation,
        jnp.asarray(isocenter, jnp.float32),
        sdd=sdd,
        source_to_isocenter=number_in(
            f"{where}: source_to_isocenter", entry["source_to_isocenter"], 100.0, sdd, "mm"
        ),
        pixel_spacing=(du, dv),
        image_size=_image_size(where, entry),
    )


def _carm_rotation(where: str, entry: dict[str, Any]) -> transforms.SO3:
    names = (*_ANGLE_KEYS, "in_plane_deg")
    degrees = [number_in(f"{where}: {n}", entry.get(n, 0.0), -360.0, 360.0, "deg") for n in names]
    primary, secondary, in_plane = np.radians(degrees).tolist()
    return transforms.carm_rotation(primary, secondary, in_plane)


def _named_rotation(where: str, view: Any) -> transforms.SO3:
    if not isinstance(view, str) or view not in transforms.VIEW_AXES:
        raise DataError(f"{where}: {unknown_name('view', str(view), list(transforms.VIEW_AXES))}")
    return transforms.view_rotation(view)


def _image_size(where: str, entry: dict[str, Any]) -> tuple[int, int]:
    size = array_of(f"{where}: image_size [height, width]", entry["image_size"], (2,))
    if (size != np.rint(size)).any() or size.min() < 16 or size.max() > 16384:
        raise DataError(f"{where}: image_size: [height, width] in whole pixels is needed")
    return int(size[0]), int(size[1])


def _axes(where: str, entry: dict[str, Any]) -> Float[np.ndarray, "3 3"]:
    if "axes_world" in entry:
        return rotation_of(f"{where}: axes_world", entry["axes_world"])
    degrees = array_of(f"{where}: rotation_deg", entry.get("rotation_deg", [0, 0, 0]), (3,))
    x, y, z = np.radians(degrees)
    turn = transforms.SO3.from_rpy_radians(roll=x, pitch=y, yaw=z)
    return np.asarray(turn.as_matrix(), np.float64)


def _landmarks(where: str, value: Any) -> dict[str, Float[np.ndarray, "3"]]:
    if value is None:
        return {}
    check_keys(where, value, [], LANDMARK_NAMES)
    points = {name: array_of(f"{where}: {name}", point, (3,)) for name, point in value.items()}
    spread = np.linalg.svd(_centered(points), compute_uv=False) if len(points) >= 3 else [0.0, 0.0]
    if spread[1] < 1.0:
        raise DataError(
            f"{where}: at least three landmarks that are not on one line are needed, in mm; "
            f"the ten names are {', '.join(LANDMARK_NAMES)}"
        )
    return points


def _centered(points: dict[str, Float[np.ndarray, "3"]]) -> Float[np.ndarray, "n 3"]:
    array = np.stack(list(points.values()))
    return array - array.mean(0)
