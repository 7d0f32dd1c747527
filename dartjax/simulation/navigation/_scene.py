"""Simulated X-ray images of two-plane navigation: anatomy, C-arm, bi-planar target and wire."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import camera as cameras
from dartjax import data, render, transforms
from dartjax.observations import NeedlePath
from dartjax.robot import DetectionFailed, distal, navigation, raise_for_status
from dartjax.robot.carm import (
    BallOptions,
    Balls,
    CarmView,
    Nail,
    PlateCalibration,
    balls_attenuation,
    detect_balls,
    fit_global,
    ideal_of_real_global,
    ideal_pixels,
    image_rays,
    intensifier,
    nail_attenuation,
    project_points,
    real_of_ideal,
    record_image,
)
from dartjax.robot.navigation import PartMatch, TwoPlaneView
from dartjax.simulation._calibration import (
    CENTER,
    FOCAL_LENGTH,
    IMAGE_SIZE,
    PLATE_DEPTH,
    SDD,
    PlateMounting,
    calibrate_with_plate,
    random_intrinsics,
)
from dartjax.transforms import SE3, SO3

SOURCE_TO_ISOCENTER = 700.0  # mm
VIEWS = ("AP", "LAT_L")
# The radii of the layers' shadows differ by 7 per cent.
TARGET_BALLS = BallOptions(radius_px=6.2, radius_spread=0.3, candidates=448, capacity=192)
_TUBE_BUMP = 0.02  # local defect of the intensifier, 15 mm wide on the plate
CARM_TILT_DEG = 2.0  # largest deviation of a view from its nominal direction, per axis
HOLD_TILT_DEG, HOLD_SHIFT_MM = 1.5, 4.0  # largest errors of the target held by the robot, per axis
WIRE_RADIUS_MM = 1.0
_BOLUS = 0.75  # log of the brightest grey under bags of saline, over the median
# The plate touches the intensifier; nothing else is in the beam.
_PLATE = PlateMounting(turn_rad=(0.004, 0.004, 0.01), shift_mm=0.7, depth_mm=0.0, background=0.0)
_RAY_SAMPLES = 300
_ANATOMY_VERSION = "2"
_WIRE_BEFORE_ENTRY_MM = 100.0  # rendered length of a wire outside the patient


@functools.cache
def scene_target() -> navigation.BiPlanar:
    """Return the bi-planar target of every scene."""
    # Created on first use: an import must not initialise a device, and tracing must not leak.
    with jax.ensure_compile_time_eval():
        return navigation.biplanar_target()


class NavigationView(NamedTuple):
    """One pose of the C-arm: its true geometry and its calibration."""

    carm: CarmView
    T_camera_world: SE3
    anatomy: jax.Array  # -log transmission, as recorded
    rays: jax.Array
    calibrated: PlateCalibration


class RegisteredPair(NamedTuple):
    """Pair of images registered to the target."""

    views: TwoPlaneView  # stacked
    matches: tuple[PartMatch, PartMatch]
    images: tuple[np.ndarray, np.ndarray]


_shoot = jax.jit(functools.partial(render.drr, num_samples=_RAY_SAMPLES))
_rays = jax.jit(image_rays, static_argnums=1)
_balls = jax.jit(balls_attenuation)
_record = jax.jit(lambda anatomy, metal, key: record_image(anatomy, metal, key=key))
_detect = jax.jit(detect_balls, static_argnums=1)
_wire = jax.jit(nail_attenuation)


def navigation_views(
    case: data.Case, center: np.ndarray, seed: int, number: int, *, bolus: bool = True
) -> tuple[NavigationView, NavigationView]:
    """Draw AP and lateral views of a vertebra's centre (3,); calibrate each from a plate image.

    The views deviate by up to 2 degrees per axis. Raises NavigationError if a plate is not
    recognised. With `bolus`, bags of saline cover the patient, because balls are invisible where
    the direct beam saturates the image.
    """
    rng = np.random.default_rng([seed, number, 1])
    return _view(case, center, 0, rng, bolus), _view(case, center, 1, rng, bolus)


def _view(
    case: data.Case, center: np.ndarray, part: int, rng: np.random.Generator, bolus: bool
) -> NavigationView:
    tilt = np.deg2rad(rng.uniform(-CARM_TILT_DEG, CARM_TILT_DEG, 3))
    rotation = transforms.view_rotation(VIEWS[part]) @ SO3.from_rpy_radians(*tilt)
    half = cameras.from_carm(
        rotation,
        jnp.asarray(center, jnp.float32),
        sdd=SDD,
        source_to_isocenter=SOURCE_TO_ISOCENTER,
        pixel_spacing=2.0 * SDD / FOCAL_LENGTH,
        image_size=(IMAGE_SIZE[0] // 2, IMAGE_SIZE[1] // 2),
    )
    carm = CarmView(random_intrinsics(rng), intensifier(bump=_TUBE_BUMP), rotation, IMAGE_SIZE)
    anatomy = _recorded(_drr(case, half), half, _rays(carm, 1))
    if bolus:
        anatomy = jnp.maximum(anatomy, jnp.median(anatomy) - _BOLUS)
    fine = _rays(carm, 2)
    calibrated, _ = calibrate_with_plate(carm, fine, _PLATE, rng)
    return NavigationView(carm, half.camera_from_world, anatomy, fine, calibrated)


def _drr(case: data.Case, view: cameras.Camera) -> np.ndarray:
    """Line integrals at half the images' resolution, cached between runs."""
    content = [np.frombuffer(case.ct_hash.encode(), np.uint8)]
    content += [np.asarray(leaf) for leaf in jax.tree.leaves(view)]
    like = np.zeros(0, np.float16)

    def make() -> np.ndarray:
        return np.asarray(_shoot(case.ct, view)).astype(np.float16)

    return data.remembered("navigate_anatomy", _ANATOMY_VERSION, content, like, make)


@jax.jit
def _recorded(anatomy: jax.Array, half: cameras.Camera, rays: jax.Array) -> jax.Array:
    """Distort a pinhole image: sample it along the ray of every recorded pixel."""
    at = rays * half.focal_length[None, None] + half.principal_point[None, None]
    at = [at[..., 1] - 0.5, at[..., 0] - 0.5]
    image = anatomy.astype(jnp.float32)
    return jax.scipy.ndimage.map_coordinates(image, at, order=1, mode="nearest")


def held_target(center: np.ndarray, rng: np.random.Generator) -> SE3:
    """Draw T_world_target: perpendicular to the AP beam and centred at the vertebra, with the
    errors of a target held by the robot."""
    aligned = navigation.aligned_target(
        transforms.view_rotation("AP"), jnp.asarray(center, jnp.float32)
    )
    turn = SO3.from_rpy_radians(*np.deg2rad(rng.uniform(-HOLD_TILT_DEG, HOLD_TILT_DEG, 3)))
    shift = jnp.asarray(rng.uniform(-HOLD_SHIFT_MM, HOLD_SHIFT_MM, 3), jnp.float32)
    return aligned @ SE3.from_rotation_and_translation(turn, shift)


def expose_target(view: NavigationView, part: int, T_world_target: SE3, seed: int) -> jax.Array:
    """Render the image of the anatomy and of the target's part for this view."""
    balls = scene_target().points(part).reshape(-1, 3)
    pose = view.T_camera_world @ T_world_target
    metal = _balls(view.rays, view.carm, balls, scene_target().radius, pose)
    return _record(view.anatomy, metal, jax.random.key(seed))


def expose_wire(view: NavigationView, wire: NeedlePath, seed: int) -> np.ndarray:
    """Render the image of the anatomy and a placed wire, without the target."""
    along = np.asarray(wire.target_point - wire.entry_point, float)
    x = along / np.linalg.norm(along)
    y = np.cross(x, np.eye(3)[np.argmin(np.abs(x))])
    y /= np.linalg.norm(y)
    turn = SO3.from_matrix(jnp.asarray(np.stack([x, y, np.cross(x, y)], axis=1), jnp.float32))
    pose = SE3.from_rotation_and_translation(turn, wire.target_point)
    ends = jnp.array([-float(np.linalg.norm(along)) - _WIRE_BEFORE_ENTRY_MM, 0.0])
    steel = Nail(jnp.asarray(WIRE_RADIUS_MM), jnp.asarray(0.0), jnp.asarray(30.0), ends)
    metal = _wire(view.rays, steel, view.T_camera_world @ pose)
    return np.asarray(_record(view.anatomy, metal, jax.random.key(seed)))


@functools.partial(jax.jit, static_argnums=2)
def _registered(found: Balls, calibrated: PlateCalibration, part: int):
    ideal = ideal_pixels(calibrated, found.centers)
    on_plate = jnp.isfinite(ideal[:, 0])
    match, status = navigation.match_part(
        jnp.where(on_plate[:, None], ideal, 0.0),
        found.valid & on_plate,
        scene_target(),
        part,
        focal_length=FOCAL_LENGTH,
        source_to_isocenter=SOURCE_TO_ISOCENTER,
        center=jnp.array(CENTER),
    )
    view, fit_status = navigation.register_view(match, scene_target(), part)
    return view, match, jnp.where(status != 0, status, fit_status)


def register_target(
    image: jax.Array, view: NavigationView, part: int
) -> tuple[TwoPlaneView, PartMatch]:
    """Register one image to the target by two planes. Raises NavigationError if it fails."""
    distal.check_exposure(distal.saturated_share(image))
    found = _detect(image, TARGET_BALLS)
    registered, match, status = _registered(found, view.calibrated, part)
    raise_for_status(
        status,
        f"{VIEWS[part]} view: {int(match.seen.sum())} of {match.seen.size} target balls match "
        f"the {int(found.valid.sum())} detected ones: hold the part of this view perpendicular "
        "to the beam and repeat the exposure",
    )
    return registered, match


def expose_and_register(
    pair: tuple[NavigationView, NavigationView], T_world_target: SE3, seed: int
) -> RegisteredPair:
    """Render both views with the target and register them. Raises NavigationError if one fails."""
    images = [
        expose_target(view, part, T_world_target, seed + part) for part, view in enumerate(pair)
    ]
    found = [register_target(image, pair[part], part) for part, image in enumerate(images)]
    views = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(view for view, _ in found))
    return RegisteredPair(
        views,
        (found[0][1], found[1][1]),
        (np.asarray(images[0]), np.asarray(images[1])),
    )


def recorded_target_balls(
    seen: RegisteredPair, pair: tuple[NavigationView, NavigationView]
) -> list[np.ndarray]:
    """List, per view, the recorded pixels of the recognised balls, (layer, ball, 2)."""
    found = []
    for match, view in zip(seen.matches, pair, strict=True):
        flat = match.pixels.reshape(-1, 2)
        real = real_of_ideal(view.calibrated.distortion, flat)
        found.append(np.asarray(real).reshape(match.pixels.shape))
    return found


@jax.jit
def _seen(carm: CarmView, T_camera_world: SE3, points: jax.Array) -> jax.Array:
    return carm.recorded(project_points(carm.K, T_camera_world, points))


_ideal = jax.jit(ideal_pixels)


def mark_points(
    points: np.ndarray,
    pair: tuple[NavigationView, NavigationView],
    rng: np.random.Generator,
    click_px: float,
) -> jax.Array:
    """Simulate marks of world points (n, 3) in both images, with noise `click_px` per axis.

    Returns corrected pixels (n, view, 2).
    """
    marks = []
    for view in pair:
        seen = np.asarray(_seen(view.carm, view.T_camera_world, jnp.asarray(points, jnp.float32)))
        clicked = seen + click_px * rng.standard_normal(seen.shape)
        marks.append(_ideal(view.calibrated, jnp.asarray(clicked, jnp.float32)))
    found = jnp.stack(marks, axis=1)
    if not np.isfinite(np.asarray(found)).all():
        raise DetectionFailed("a mark lies outside the calibration plate: centre the vertebra")
    return found


class DistortionResidual(NamedTuple):
    """Residual distortion: distances (mm on the plate) between corrected and pinhole pixels."""

    local: np.ndarray
    polynomial: np.ndarray
    uncorrected: np.ndarray


def distortion_residual(
    view: NavigationView, rng: np.random.Generator, count: int = 400
) -> DistortionResidual:
    """Measure the residual distortion of each correction at random points of the field.

    The best affine map of the whole image is removed first, because calibration and registration
    compensate it.
    """
    angle, share = rng.uniform(-np.pi, np.pi, count), np.sqrt(rng.random(count))
    radius = 104.0 * FOCAL_LENGTH / PLATE_DEPTH * share
    ideal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1) + np.array(CENTER)
    real = view.carm.recorded(jnp.asarray(ideal, jnp.float32))
    local = np.asarray(_ideal(view.calibrated, real))
    lattice = view.calibrated.distortion
    rows, columns = lattice.usable.shape
    i, j = np.mgrid[:rows, :columns]
    nodes = np.asarray(lattice.origin) + np.stack([j, i], -1).reshape(-1, 2) @ np.asarray(
        lattice.basis
    )
    displaced = nodes + np.asarray(lattice.displacement).reshape(-1, 2)
    fit = fit_global(
        jnp.asarray(displaced, jnp.float32),
        jnp.asarray(nodes, jnp.float32),
        view.calibrated.nodes.reshape(-1),
        5,
    )
    polynomial = np.asarray(ideal_of_real_global(fit, real))
    known = np.isfinite(local[:, 0])
    corrections = (local, polynomial, np.asarray(real))
    mm = PLATE_DEPTH / FOCAL_LENGTH
    return DistortionResidual(
        *(mm * _affine_residual(pixels[known], ideal[known]) for pixels in corrections)
    )


def _affine_residual(pixels: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    design = np.c_[ideal, np.ones(len(ideal))]
    fit = np.linalg.lstsq(design, pixels, rcond=None)[0]
    return np.linalg.norm(pixels - design @ fit, axis=1)
