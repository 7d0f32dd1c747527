"""Scenes of distal locking: anatomy behind, nail and drill guide in front, seen by a C-arm."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import camera as cameras
from dartjax import data, render, transforms
from dartjax.image import Volume
from dartjax.robot import (
    CarmView,
    drill_guide,
    guide_attenuation,
    image_rays,
    intensifier,
    intrinsics,
    locking_nail,
    nail_attenuation,
    record_image,
)
from dartjax.transforms import SE3, SO3
from experiments import cache, launch

IMAGE_SIZE = (576, 768)
FOCAL_LENGTH = 2480.0  # px
SDD = 1000.0  # mm
_BACKGROUND_VERSION = "1"
_HALF = tuple(side // 2 for side in IMAGE_SIZE)
_RAY_SAMPLES = 300
GUIDE, NAIL = drill_guide(), locking_nail()


class Scene(NamedTuple):
    """What is in one image. None: it is not there."""

    view: CarmView
    T_camera_guide: SE3 | None
    T_camera_nail: SE3 | None


def backgrounds(case: data.Case, count: int, seed: int) -> np.ndarray:
    """-log transmission of the case's CT in `count` views all round it, (count, 288, 384): half
    the resolution of the images, finer than the CT. Remembered between runs."""
    values = np.asarray(case.ct.values)
    content = [values, np.asarray(case.ct.world_from_voxel), np.array([count, seed])]

    def make() -> np.ndarray:
        rng = np.random.default_rng([seed, 77])
        shoot = jax.jit(functools.partial(render.drr, num_samples=_RAY_SAMPLES))
        images = []
        with launch.progress("anatomy radiographs", count) as step:
            for _ in range(count):
                images.append(np.asarray(shoot(case.ct, _anatomy_camera(rng, case.ct))))
                step()
        return np.stack(images).astype(np.float16)

    like = np.zeros(0, np.float16)
    return cache.remembered("distal_backgrounds", _BACKGROUND_VERSION, content, like, make)


def _anatomy_camera(rng: np.random.Generator, ct: Volume) -> cameras.Camera:
    """A view from anywhere round the patient, of somewhere in the middle of the CT."""
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


def random_view(rng: np.random.Generator) -> CarmView:
    """The C-arm somewhere about the patient: its tube distorts by how it stands, its source sags
    by a few millimetres."""
    rotation = transforms.carm_rotation(rng.uniform(-np.pi, np.pi), rng.uniform(-0.4, 0.4))
    centre = np.array([384.0, 288.0]) + rng.normal(0.0, 4.0, 2)
    K = intrinsics(FOCAL_LENGTH + rng.normal(0.0, 6.0), jnp.asarray(centre))
    return CarmView(K, intensifier(), rotation, IMAGE_SIZE)


# One program each: fused into one, the rays would be computed again for every shadow.
_rays = jax.jit(image_rays)
_guide = jax.jit(lambda rays, view, pose: guide_attenuation(rays, view, GUIDE, pose))
_nail = jax.jit(lambda rays, pose: nail_attenuation(rays, NAIL, pose))


@jax.jit
def _record(anatomy: jax.Array, metal: jax.Array, key: jax.Array) -> jax.Array:
    behind = jax.image.resize(anatomy.astype(jnp.float32), IMAGE_SIZE, "linear")
    return record_image(behind, metal, key=key)


def photograph(scene: Scene, anatomy: np.ndarray, seed: int) -> jax.Array:
    """The image of a scene in front of one anatomy (288, 384)."""
    rays = _rays(scene.view)
    metal = jnp.zeros(rays.shape[:2])
    if scene.T_camera_guide is not None:
        metal = metal + _guide(rays, scene.view, scene.T_camera_guide)
    if scene.T_camera_nail is not None:
        metal = metal + _nail(rays, scene.T_camera_nail)
    return _record(anatomy, metal, jax.random.key(seed))


class Arrangement(NamedTuple):
    """How nail and drill guide lie: ranges of uniform random numbers. mm and degrees."""

    nail_tilt_deg: tuple[float, float] = (0.0, 10.0)  # of the holes' axis from the beam
    nail_depth: tuple[float, float] = (610.0, 670.0)
    nail_shift: float = 15.0  # of the first hole from the middle of the image, to each side
    guide_height: tuple[float, float] = (30.0, 60.0)  # over the nail, toward the source
    guide_along: float = 8.0  # to each side of where it should be
    guide_across: tuple[float, float] = (-8.0, 8.0)
    guide_tilt_deg: float = 6.0  # about each axis


def random_scene(rng: np.random.Generator, arrangement: Arrangement = Arrangement()) -> Scene:
    """Nail and drill guide at random, in a C-arm that stands at random."""
    a = arrangement
    tilt, lean = np.deg2rad(rng.uniform(*a.nail_tilt_deg)), rng.uniform(-np.pi, np.pi)
    depth = rng.uniform(*a.nail_depth)
    turn = rng.uniform(-np.pi, np.pi)
    # The middle of both holes, not the first alone, is kept near the middle of the image.
    middle = rng.uniform(-a.nail_shift, a.nail_shift, 2)
    first = middle + 15.0 * np.array([np.cos(turn), np.sin(turn)])
    # Tilt is counted from the ray to the hole, not from the camera's axis.
    slope = first / depth
    nail = looking_down(
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
    return Scene(random_view(rng), nail @ offset, nail)


def looking_down(in_plane: float, tilt_x: float, tilt_y: float, position: np.ndarray) -> SE3:
    """Pose of a frame whose z points to the source when both tilts (rad, about the camera's x and
    y) are 0."""
    base = SO3.from_z_radians(in_plane) @ SO3.from_x_radians(jnp.pi)
    tilt = SO3.from_x_radians(tilt_x) @ SO3.from_y_radians(tilt_y)
    return SE3.from_rotation_and_translation(tilt @ base, jnp.asarray(position, jnp.float32))
