"""The simulated C-arm of the robot studies, and its calibration from one image of a plate."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax._types import Image, Matrix3, Scalar
from dartjax.robot import raise_for_status
from dartjax.robot.carm import (
    PLATE_BALLS,
    Balls,
    CalibrationPhantom,
    CarmView,
    PlateCalibration,
    balls_attenuation,
    calibrate_from_balls,
    calibration_phantom,
    detect_balls,
    intrinsics,
    record_image,
)
from dartjax.transforms import SE3, SO3

IMAGE_SIZE = (576, 768)
FOCAL_LENGTH = 2480.0  # px
SDD = 1000.0  # mm
CENTER = (384.0, 288.0)  # px
PLATE_DEPTH = 985.0  # mm from the source


@functools.cache
def _phantom() -> CalibrationPhantom:
    """The calibration phantom of every simulated C-arm."""
    # Created on first use: an import must not initialise a device, and tracing must not leak.
    with jax.ensure_compile_time_eval():
        return calibration_phantom()


class PlateMounting(NamedTuple):
    """Mounting of the plate in front of the intensifier: standard deviations of its pose, and
    attenuation in the background."""

    turn_rad: tuple[float, float, float]
    shift_mm: float
    depth_mm: float  # 0: the plate touches the intensifier
    background: float  # -log transmission


def random_intrinsics(rng: np.random.Generator) -> Matrix3:
    """Draw the true K of a C-arm whose source is displaced by a few millimetres."""
    center = jnp.asarray(np.array(CENTER) + rng.normal(0.0, 4.0, 2), jnp.float32)
    return intrinsics(FOCAL_LENGTH + rng.normal(0.0, 6.0), center)


def calibrate_with_plate(
    view: CarmView, rays: jax.Array, mounting: PlateMounting, rng: np.random.Generator
) -> tuple[PlateCalibration, SE3]:
    """Calibrate a C-arm from one rendered image of the plate.

    Returns the calibration and the true T_camera_plate. `rays` (h, w, 2) are those of every sample
    of the image. If the plate is not recognised, it is mounted again; NavigationError if the second
    image fails too.
    """
    T_camera_plate, found, calibrated, status = _attempt(view, rays, mounting, rng)
    if int(status):
        T_camera_plate, found, calibrated, status = _attempt(view, rays, mounting, rng)
    num_balls = int(found.valid.sum())
    raise_for_status(
        status, f"calibration plate not recognised ({num_balls} balls detected): move it into view"
    )
    return calibrated, T_camera_plate


def _attempt(
    view: CarmView, rays: jax.Array, mounting: PlateMounting, rng: np.random.Generator
) -> tuple[SE3, Balls, PlateCalibration, jax.Array]:
    T_camera_plate = _mounted_plate(view, mounting, rng)
    key = jax.random.key(int(rng.integers(2**31)))
    image = _plate_image(rays, view, T_camera_plate, jnp.asarray(mounting.background), key)
    found = _detect(image)
    return T_camera_plate, found, *_calibrate(found)


def _mounted_plate(view: CarmView, mounting: PlateMounting, rng: np.random.Generator) -> SE3:
    """Draw T_camera_plate: in front of the intensifier, nearly perpendicular to the beam."""
    turn = SO3.from_rpy_radians(*rng.normal(0.0, mounting.turn_rad))
    middle = (np.array(CENTER) - np.asarray(view.K)[:2, 2]) * PLATE_DEPTH / FOCAL_LENGTH
    shift = middle + rng.normal(0.0, mounting.shift_mm, 2)
    depth = PLATE_DEPTH
    if mounting.depth_mm:
        depth += rng.normal(0.0, mounting.depth_mm)
    position = jnp.asarray([*shift, depth], jnp.float32)
    return SE3.from_rotation_and_translation(turn, position)


@jax.jit
def _plate_image(
    rays: jax.Array, view: CarmView, T_camera_plate: SE3, background: Scalar, key: jax.Array
) -> Image:
    on_plate = np.flatnonzero(np.asarray(_phantom().on_plate).reshape(-1))
    balls = jnp.concatenate([_phantom().plate.reshape(-1, 3)[on_plate], _phantom().upper])
    metal = balls_attenuation(rays, view, balls, _phantom().radius, T_camera_plate)
    return record_image(jnp.full(IMAGE_SIZE, background), metal, key=key)


@jax.jit
def _detect(image: jax.Array) -> Balls:
    return detect_balls(image, PLATE_BALLS)


@jax.jit
def _calibrate(found: Balls) -> tuple[PlateCalibration, jax.Array]:
    return calibrate_from_balls(
        found,
        _phantom(),
        nominal_focal_length=FOCAL_LENGTH,
        nominal_depth=PLATE_DEPTH,
        center=CENTER,
    )
