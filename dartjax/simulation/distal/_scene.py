"""Simulated X-ray images of distal locking: anatomy, nail and drill guide."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from dartjax import camera as cameras
from dartjax import data, render, transforms
from dartjax._progress import Step, no_step
from dartjax.image import Volume
from dartjax.robot.carm import (
    CarmView,
    DrillGuide,
    Nail,
    PlateCalibration,
    balls_attenuation,
    drill_guide,
    guide_attenuation,
    ideal_pixels,
    image_rays,
    intensifier,
    locking_nail,
    nail_attenuation,
    record_image,
    to_slopes,
)
from dartjax.robot.distal import LocatedGuideAndNail, locate_guide_and_nail
from dartjax.simulation._calibration import (
    CENTER,
    FOCAL_LENGTH,
    IMAGE_SIZE,
    SDD,
    PlateMounting,
    calibrate_with_plate,
    random_intrinsics,
)
from dartjax.transforms import SE3, SO3

_BACKGROUND_VERSION = "1"
_HALF = tuple(side // 2 for side in IMAGE_SIZE)
_RAY_SAMPLES = 300
_PLATE = PlateMounting(turn_rad=(0.002, 0.002, 0.002), shift_mm=1.0, depth_mm=1.0, background=0.7)
_NUM_STRAY, _STRAY_RADIUS = 6, 1.75  # stray balls that belong to no target; radius in mm


@functools.cache
def scene_guide() -> DrillGuide:
    """Return the drill guide of every scene."""
    # Created on first use: an import must not initialise a device, and tracing must not leak.
    with jax.ensure_compile_time_eval():
        return drill_guide()


@functools.cache
def scene_nail() -> Nail:
    """Return the nail of every scene."""
    # Created on first use: an import must not initialise a device, and tracing must not leak.
    with jax.ensure_compile_time_eval():
        return locking_nail()


def anatomy_backgrounds(case: data.Case, count: int, seed: int, step: Step = no_step) -> np.ndarray:
    """Render the -log transmission of the case's CT in `count` views from all sides.

    The result (count, 288, 384) has half the resolution of the images, which is finer than the CT.
    `step` is called after every view. The result is cached between runs.
    """
    values = np.asarray(case.ct.values)
    content = [values, np.asarray(case.ct.world_from_voxel), np.array([count, seed])]

    def make() -> np.ndarray:
        rng = np.random.default_rng([seed, 77])
        shoot = jax.jit(functools.partial(render.drr, num_samples=_RAY_SAMPLES))
        images = []
        for _ in range(count):
            images.append(np.asarray(shoot(case.ct, _anatomy_camera(rng, case.ct))))
            step("anatomy")
        return np.stack(images).astype(np.float16)

    like = np.zeros(0, np.float16)
    return data.remembered("distal_backgrounds", _BACKGROUND_VERSION, content, like, make)


def _anatomy_camera(rng: np.random.Generator, ct: Volume) -> cameras.Camera:
    """Draw a view from any direction, of a random point near the middle of the CT."""
    shape = np.array(ct.values.shape)
    inside = (0.5 + rng.uniform(-0.22, 0.22, 3)) * (shape - 1)
    matrix = np.asarray(ct.world_from_voxel, float)
    middle = matrix[:3, :3] @ inside + matrix[:3, 3]
    angles = rng.uniform(-np.pi, np.pi), rng.uniform(-0.3, 0.3), rng.uniform(-np.pi, np.pi)
    return cameras.from_carm(
        transforms.carm_rotation(*angles),
        jnp.asarray(middle, jnp.float32),
        sdd=SDD,
        source_to_isocenter=650.0,
        pixel_spacing=2.0 * SDD / FOCAL_LENGTH,
        image_size=(_HALF[0], _HALF[1]),
    )


class CalibratedCarm(NamedTuple):
    """One pose of the C-arm: its true geometry and its calibration from one image of the plate."""

    view: CarmView
    rays: jax.Array  # of every sample of its images
    calibrated: PlateCalibration
    T_found_true: SE3  # from the true camera's frame to that of the calibrated one


class LockingScene(NamedTuple):
    """Objects in one image; None for an absent object."""

    carm: CalibratedCarm
    T_camera_guide: SE3 | None
    T_camera_nail: SE3 | None
    stray_balls: np.ndarray | None = None  # (6, 3) in the camera frame, mm


def calibrated_carm(rng: np.random.Generator) -> CalibratedCarm:
    """Draw a C-arm pose and calibrate it from a rendered image of the plate.

    Raises NavigationError if the plate is not recognised.
    """
    view = random_carm_view(rng)
    rays = _rays(view)
    calibrated, T_camera_plate = calibrate_with_plate(view, rays, _PLATE, rng)
    T_found_true = calibrated.carm.T_camera_phantom @ T_camera_plate.inverse()
    return CalibratedCarm(view, rays, calibrated, T_found_true)


def find_guide_and_nail(image: jax.Array, carm: CalibratedCarm) -> LocatedGuideAndNail:
    """Locate drill guide and nail in an image of a calibrated C-arm."""
    return locate_guide_and_nail(
        image, carm.calibrated.distortion, carm.calibrated.carm.K, scene_guide(), scene_nail()
    )


def distortion_left_mm(carm: CalibratedCarm, *, num_points: int = 400) -> np.ndarray:
    """Measure the residual distortion after calibration (num_points,), mm on the detector.

    Compares rays of known points in a field of 200 mm with the rays of their recorded pixels; NaN
    outside the plate. The rotation between calibrated and true camera is removed, because no
    measurement in the camera's own frame depends on it.
    """
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, num_points), 250.0 * np.sqrt(rng.random(num_points))
    ideal = np.stack(
        [CENTER[0] + radius * np.cos(angle), CENTER[1] + radius * np.sin(angle)], axis=1
    )
    true = to_slopes(carm.view.K, jnp.asarray(ideal, jnp.float32))
    recorded = np.asarray(carm.view.recorded(jnp.asarray(ideal, jnp.float32)))
    found = to_slopes(carm.calibrated.carm.K, jnp.asarray(corrected_pixels(carm, recorded)))
    rays = np.concatenate([np.asarray(true), np.ones((num_points, 1))], axis=1)
    turned = rays @ np.asarray(carm.T_found_true.rotation().as_matrix()).T
    return np.hypot(*(np.asarray(found) - turned[:, :2] / turned[:, 2:]).T) * SDD


def calibration_row(carm: CalibratedCarm) -> dict[str, Any]:
    """Summarise one calibration: detected balls, error of the focal length, estimated standard
    deviations, and residual distortion."""
    calibrated = carm.calibrated
    sigma = np.asarray(calibrated.carm.sigma)
    residual = distortion_left_mm(carm)
    return {
        "plate_balls": int(np.sum(calibrated.nodes)),
        "upper_balls": int(np.sum(calibrated.upper)),
        "rms_px": float(calibrated.carm.rms_px),
        "focal_length_error_px": float(calibrated.carm.K[0, 0] - carm.view.K[0, 0]),
        "focal_length_sigma_px": float(sigma[0]),
        "cx_sigma_px": float(sigma[1]),
        "cy_sigma_px": float(sigma[2]),
        "distortion_left_mean_mm": float(np.nanmean(residual)),
        "distortion_left_max_mm": float(np.nanmax(residual)),
    }


def corrected_pixels(carm: CalibratedCarm, recorded: np.ndarray) -> np.ndarray:
    """Correct recorded pixels (n, 2) for distortion by the calibration; NaN outside the plate."""
    return np.asarray(_ideal(carm.calibrated, jnp.asarray(recorded)))


def random_carm_view(rng: np.random.Generator) -> CarmView:
    """Draw a C-arm view of the patient.

    The distortion depends on the orientation; the source is displaced by a few millimetres.
    """
    rotation = transforms.carm_rotation(rng.uniform(-np.pi, np.pi), rng.uniform(-0.4, 0.4))
    return CarmView(random_intrinsics(rng), intensifier(), rotation, IMAGE_SIZE)


# Separate programs: in a fused one the rays would be recomputed for every shadow.
_rays = jax.jit(image_rays)
_ideal = jax.jit(ideal_pixels)
_guide = jax.jit(lambda rays, view, pose: guide_attenuation(rays, view, scene_guide(), pose))
_stray = jax.jit(
    lambda rays, view, balls: balls_attenuation(rays, view, balls, _STRAY_RADIUS, SE3.identity())
)
_nail = jax.jit(lambda rays, pose: nail_attenuation(rays, scene_nail(), pose))


@jax.jit
def _record(anatomy: jax.Array, metal: jax.Array, key: jax.Array) -> jax.Array:
    behind = jax.image.resize(anatomy.astype(jnp.float32), IMAGE_SIZE, "linear")
    return record_image(behind, metal, key=key)


def expose_locking_scene(scene: LockingScene, anatomy: np.ndarray, seed: int) -> jax.Array:
    """Render the image of a scene in front of an anatomy background (288, 384)."""
    if all(part is None for part in scene[1:]):
        return _record(anatomy, jnp.zeros(IMAGE_SIZE), jax.random.key(seed))
    rays, view = scene.carm.rays, scene.carm.view
    metal = jnp.zeros(rays.shape[:2])
    if scene.T_camera_guide is not None:
        metal = metal + _guide(rays, view, scene.T_camera_guide)
    if scene.T_camera_nail is not None:
        metal = metal + _nail(rays, scene.T_camera_nail)
    if scene.stray_balls is not None:
        metal = metal + _stray(rays, view, jnp.asarray(scene.stray_balls, jnp.float32))
    return jax.block_until_ready(_record(anatomy, metal, jax.random.key(seed)))


def random_stray_balls(rng: np.random.Generator) -> np.ndarray:
    """Draw stray balls, such as electrodes, anywhere in the field, (6, 3) in mm."""
    return rng.uniform((-80.0, -60.0, 560.0), (80.0, 60.0, 760.0), (_NUM_STRAY, 3))


def random_part_of_anatomy(rng: np.random.Generator, anatomy: np.ndarray) -> np.ndarray:
    """Augment an anatomy radiograph: crop 70 to 100 % of its width at random, and mirror it at
    random."""
    height, width = anatomy.shape
    share = rng.uniform(0.7, 1.0)
    top, left = rng.uniform(0.0, 1.0 - share, 2) * anatomy.shape
    rows = top + share * np.arange(height)
    columns = left + share * np.arange(width)
    if rng.random() < 0.5:
        rows = rows[::-1]
    if rng.random() < 0.5:
        columns = columns[::-1]
    grid = np.meshgrid(rows, columns, indexing="ij")
    return ndimage.map_coordinates(anatomy.astype(np.float32), grid, order=1, mode="nearest")


class LockingArrangement(NamedTuple):
    """Random arrangement of nail and drill guide: ranges of uniform numbers, mm and degrees."""

    nail_tilt_deg: tuple[float, float] = (0.0, 10.0)  # of the holes' axis from the beam
    nail_depth: tuple[float, float] = (610.0, 670.0)
    nail_shift: float = 15.0  # largest shift from the middle of the image, per axis
    guide_height: tuple[float, float] = (30.0, 60.0)  # over the nail, toward the source
    guide_along: float = 8.0  # largest deviation from the goal along the nail
    guide_across: tuple[float, float] = (-8.0, 8.0)
    guide_tilt_deg: float = 6.0  # largest tilt about each axis


def random_guide_and_nail(
    rng: np.random.Generator, arrangement: LockingArrangement = LockingArrangement()
) -> tuple[SE3, SE3]:
    """Draw T_camera_guide and T_camera_nail from an arrangement."""
    a = arrangement
    tilt, lean = np.deg2rad(rng.uniform(*a.nail_tilt_deg)), rng.uniform(-np.pi, np.pi)
    depth = rng.uniform(*a.nail_depth)
    turn = rng.uniform(-np.pi, np.pi)
    # The middle between both holes is near the middle of the image.
    middle = rng.uniform(-a.nail_shift, a.nail_shift, 2)
    first = middle + 15.0 * np.array([np.cos(turn), np.sin(turn)])
    # The tilt is relative to the ray to the middle of the holes, not to the camera's axis.
    slope = middle / depth
    nail = pose_facing_source(
        turn,
        tilt * np.cos(lean) - slope[1],
        tilt * np.sin(lean) + slope[0],
        np.array([*first, depth]),
    )
    place = np.array(
        [
            rng.uniform(-a.guide_along, a.guide_along),
            rng.uniform(*a.guide_across),
            rng.uniform(*a.guide_height),
        ]
    )
    angles = np.deg2rad(rng.uniform(-a.guide_tilt_deg, a.guide_tilt_deg, 3))
    offset = SE3.from_rotation_and_translation(
        SO3.from_rpy_radians(*angles), jnp.asarray(place, jnp.float32)
    )
    return nail @ offset, nail


def pose_facing_source(in_plane: float, tilt_x: float, tilt_y: float, position: np.ndarray) -> SE3:
    """Build a pose whose z axis points to the source if both tilts (rad, about the camera's x and
    y) are 0."""
    base = SO3.from_z_radians(in_plane) @ SO3.from_x_radians(jnp.pi)
    tilt = SO3.from_x_radians(tilt_x) @ SO3.from_y_radians(tilt_y)
    return SE3.from_rotation_and_translation(tilt @ base, jnp.asarray(position, jnp.float32))
