"""The C-arm room of `navigate`: anatomy, C-arm, calibration plate, bi-planar target, wires."""

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
    PLATE_BALLS,
    BallOptions,
    Balls,
    Calibrated,
    CarmView,
    Nail,
    balls_attenuation,
    calibrate_from_balls,
    calibration_phantom,
    detect_balls,
    fit_global,
    ideal_of_real_global,
    ideal_pixels,
    image_rays,
    intensifier,
    intrinsics,
    nail_attenuation,
    project_points,
    real_of_ideal,
    record_image,
)
from dartjax.robot.navigation import PartMatch, TwoPlaneView
from dartjax.transforms import SE3, SO3

IMAGE_SIZE = (576, 768)
FOCAL_LENGTH, SDD, SOURCE_TO_ISOCENTER = 2480.0, 1000.0, 700.0
CENTER = (384.0, 288.0)
PLATE_DEPTH = 985.0
VIEWS = ("AP", "LAT_L")
TARGET = navigation.biplanar_target()
PHANTOM = calibration_phantom()
# The layers' shadows differ by 7 per cent in radius.
TARGET_BALLS = BallOptions(radius_px=6.2, radius_spread=0.3, candidates=448, capacity=192)
# A local fault of the tube, 15 mm wide on the plate, beside pincushion and rotation.
TUBE = intensifier(bump=0.02)
CARM_TILT_DEG = 2.0  # of a view from its name, to each side and about each axis
HOLD_TILT_DEG, HOLD_SHIFT_MM = 1.5, 4.0  # how nearly the robot holds the target
WIRE_RADIUS_MM = 1.0
_BOLUS = 0.75  # log of the brightest grey that bags of saline leave, over the median
_RAY_SAMPLES = 300
_ANATOMY_VERSION = "2"
_STRAY_MM = 100.0  # of a wire that is drawn, before its entry


class View(NamedTuple):
    """One pose of the C-arm: what is true of it, and what its calibration says."""

    carm: CarmView
    T_camera_world: SE3
    anatomy: jax.Array  # -log transmission, as recorded
    rays: jax.Array
    calibrated: Calibrated


class Registered(NamedTuple):
    """Both views of one pair of images, registered to the target."""

    views: TwoPlaneView  # stacked
    matches: tuple[PartMatch, PartMatch]
    images: tuple[np.ndarray, np.ndarray]


_shoot = jax.jit(functools.partial(render.drr, num_samples=_RAY_SAMPLES))
_rays = jax.jit(image_rays, static_argnums=1)
_balls = jax.jit(balls_attenuation)
_record = jax.jit(lambda anatomy, metal, key: record_image(anatomy, metal, key=key))
_detect = jax.jit(detect_balls, static_argnums=1)
_wire = jax.jit(nail_attenuation)


def views_of(
    case: data.Case, center: np.ndarray, seed: int, number: int, *, bolus: bool = True
) -> tuple[View, View]:
    """AP and lateral views about a vertebra's centre, each off by up to 2 degrees, calibrated
    from an image of the plate. NavigationError if a plate is not recognised.

    With `bolus`, bags of saline lie on the patient so that no beam is bare: white on white the
    balls could not be seen.
    """
    rng = np.random.default_rng([seed, number, 1])
    return _view(case, center, 0, rng, bolus), _view(case, center, 1, rng, bolus)


def _view(
    case: data.Case, center: np.ndarray, part: int, rng: np.random.Generator, bolus: bool
) -> View:
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
    middle = jnp.asarray(np.array(CENTER) + rng.normal(0.0, 4.0, 2), jnp.float32)
    K = intrinsics(FOCAL_LENGTH + rng.normal(0.0, 6.0), middle)
    carm = CarmView(K, TUBE, rotation, IMAGE_SIZE)
    anatomy = _recorded(_drr(case, half), half, _rays(carm, 1))
    if bolus:
        anatomy = jnp.maximum(anatomy, jnp.median(anatomy) - _BOLUS)
    fine = _rays(carm, 2)
    calibrated = _calibrated(carm, fine, rng)
    return View(carm, half.camera_from_world, anatomy, fine, calibrated)


def _drr(case: data.Case, view: cameras.Camera) -> np.ndarray:
    """Line integrals at half the images' resolution, remembered between runs."""
    content = [np.frombuffer(case.ct_hash.encode(), np.uint8)]
    content += [np.asarray(leaf) for leaf in jax.tree.leaves(view)]
    like = np.zeros(0, np.float16)

    def make() -> np.ndarray:
        return np.asarray(_shoot(case.ct, view)).astype(np.float16)

    return data.remembered("navigate_anatomy", _ANATOMY_VERSION, content, like, make)


@jax.jit
def _recorded(anatomy: jax.Array, half: cameras.Camera, rays: jax.Array) -> jax.Array:
    """A pinhole's image as the tube records it: looked up along the ray of every pixel."""
    at = rays * half.focal_length[None, None] + half.principal_point[None, None]
    at = [at[..., 1] - 0.5, at[..., 0] - 0.5]
    image = anatomy.astype(jnp.float32)
    return jax.scipy.ndimage.map_coordinates(image, at, order=1, mode="nearest")


def _calibrated(carm: CarmView, rays: jax.Array, rng: np.random.Generator) -> Calibrated:
    """From one image of the plate, hung on the intensifier anew if it is not recognised."""
    found = _plate_image(carm, rays, rng)
    calibrated, status = _calibrate(found)
    if int(status):
        found = _plate_image(carm, rays, rng)
        calibrated, status = _calibrate(found)
    raise_for_status(status, f"the calibration plate has {int(found.valid.sum())} balls in sight")
    return calibrated


def _plate_image(carm: CarmView, rays: jax.Array, rng: np.random.Generator) -> Balls:
    """Balls found of the plate before the intensifier's middle, alone in the beam."""
    turn = SO3.from_rpy_radians(*rng.normal(0.0, [0.004, 0.004, 0.01]))
    middle = (np.array(CENTER) - np.asarray(carm.K)[:2, 2]) * PLATE_DEPTH / FOCAL_LENGTH
    shift = jnp.asarray([*(middle + rng.normal(0.0, 0.7, 2)), PLATE_DEPTH], jnp.float32)
    pose = SE3.from_rotation_and_translation(turn, shift)
    on_plate = PHANTOM.plate[PHANTOM.on_plate]
    metal = sum(
        _balls(rays, carm, balls, PHANTOM.radius, pose) for balls in (on_plate, PHANTOM.upper)
    )
    key = jax.random.key(int(rng.integers(2**31)))
    return _detect(_record(jnp.zeros(IMAGE_SIZE), metal, key), PLATE_BALLS)


@jax.jit
def _calibrate(found: Balls):
    return calibrate_from_balls(
        found,
        PHANTOM,
        nominal_focal_length=FOCAL_LENGTH,
        nominal_depth=PLATE_DEPTH,
        center=CENTER,
    )


def held_target(center: np.ndarray, rng: np.random.Generator) -> SE3:
    """T_world_biplanar: square to the AP view, about the vertebra, as nearly as the robot holds
    it."""
    square = navigation.aligned_target(
        transforms.view_rotation("AP"), jnp.asarray(center, jnp.float32)
    )
    turn = SO3.from_rpy_radians(*np.deg2rad(rng.uniform(-HOLD_TILT_DEG, HOLD_TILT_DEG, 3)))
    shift = jnp.asarray(rng.uniform(-HOLD_SHIFT_MM, HOLD_SHIFT_MM, 3), jnp.float32)
    return square @ SE3.from_rotation_and_translation(turn, shift)


def photograph(view: View, part: int, T_world_target: SE3, seed: int) -> jax.Array:
    """The image of anatomy and of the part of the target that belongs to the view."""
    balls = TARGET.points(part).reshape(-1, 3)
    pose = view.T_camera_world @ T_world_target
    metal = _balls(view.rays, view.carm, balls, TARGET.radius, pose)
    return _record(view.anatomy, metal, jax.random.key(seed))


def check_image(view: View, wire: NeedlePath, seed: int) -> np.ndarray:
    """The image after a wire was placed, without the target."""
    along = np.asarray(wire.target_point - wire.entry_point, float)
    x = along / np.linalg.norm(along)
    y = np.cross(x, np.eye(3)[np.argmin(np.abs(x))])
    y /= np.linalg.norm(y)
    turn = SO3.from_matrix(jnp.asarray(np.stack([x, y, np.cross(x, y)], axis=1), jnp.float32))
    pose = SE3.from_rotation_and_translation(turn, wire.target_point)
    ends = jnp.array([-float(np.linalg.norm(along)) - _STRAY_MM, 0.0])
    steel = Nail(jnp.asarray(WIRE_RADIUS_MM), jnp.asarray(0.0), jnp.asarray(30.0), ends)
    metal = _wire(view.rays, steel, view.T_camera_world @ pose)
    return np.asarray(_record(view.anatomy, metal, jax.random.key(seed)))


@functools.partial(jax.jit, static_argnums=2)
def _registered(found: Balls, calibrated: Calibrated, part: int):
    ideal = ideal_pixels(calibrated, found.centers)
    on_plate = jnp.isfinite(ideal[:, 0])
    match, status = navigation.match_part(
        jnp.where(on_plate[:, None], ideal, 0.0),
        found.valid & on_plate,
        TARGET,
        part,
        focal_length=FOCAL_LENGTH,
        source_to_isocenter=SOURCE_TO_ISOCENTER,
        center=jnp.array(CENTER),
    )
    view, fit_status = navigation.register_view(match, TARGET, part)
    return view, match, jnp.where(status != 0, status, fit_status)


def register_image(image: jax.Array, view: View, part: int) -> tuple[TwoPlaneView, PartMatch]:
    """The two-plane registration of one image; the named error where it fails."""
    distal.check_exposure(distal.saturated_share(image))
    found = _detect(image, TARGET_BALLS)
    registered, match, status = _registered(found, view.calibrated, part)
    raise_for_status(
        status,
        f"{VIEWS[part]} view: of {int(found.valid.sum())} balls found, {int(match.seen.sum())} are "
        f"the target's {match.seen.size}: hold its own part square into this view and expose again",
    )
    return registered, match


def register_pair(pair: tuple[View, View], T_world_target: SE3, seed: int) -> Registered:
    """Expose both views and register them. NavigationError where one fails."""
    images = [photograph(view, part, T_world_target, seed + part) for part, view in enumerate(pair)]
    found = [register_image(image, pair[part], part) for part, image in enumerate(images)]
    views = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(view for view, _ in found))
    return Registered(
        views,
        (found[0][1], found[1][1]),
        (np.asarray(images[0]), np.asarray(images[1])),
    )


def recorded_balls(seen: Registered, pair: tuple[View, View]) -> list[np.ndarray]:
    """Pixels of the recorded images where each ball was recognised, (layer, ball, 2)."""
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


def marks_of(
    points: np.ndarray, pair: tuple[View, View], rng: np.random.Generator, click_px: float
) -> jax.Array:
    """Where world points are marked in both recorded images, corrected: (n, view, 2)."""
    marks = []
    for view in pair:
        seen = np.asarray(_seen(view.carm, view.T_camera_world, jnp.asarray(points, jnp.float32)))
        clicked = seen + click_px * rng.standard_normal(seen.shape)
        marks.append(_ideal(view.calibrated, jnp.asarray(clicked, jnp.float32)))
    found = jnp.stack(marks, axis=1)
    if not np.isfinite(np.asarray(found)).all():
        raise DetectionFailed("a mark lies beyond the calibration plate: centre the vertebra")
    return found


class Residual(NamedTuple):
    """Distances in mm on the plate between corrected and pinhole pixels."""

    local: np.ndarray
    polynomial: np.ndarray
    uncorrected: np.ndarray


def distortion_residual(view: View, rng: np.random.Generator, count: int = 400) -> Residual:
    """At random places of the field that are not control points. What a straight-line map of
    the whole image could absorb is taken out: calibration and registration do so too."""
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
    each = (local, polynomial, np.asarray(real))
    mm = PLATE_DEPTH / FOCAL_LENGTH
    return Residual(*(mm * _off_affine(pixels[known], ideal[known]) for pixels in each))


def _off_affine(pixels: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    design = np.c_[ideal, np.ones(len(ideal))]
    fit = np.linalg.lstsq(design, pixels, rcond=None)[0]
    return np.linalg.norm(pixels - design @ fit, axis=1)
