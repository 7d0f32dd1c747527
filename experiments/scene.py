"""A case with a CT made into a reconstruction task: truth, simulated X-rays, observations."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import camera as cameras
from dartjax import data, mesh, metrics, planning, ssm, transforms
from dartjax.camera import Camera
from dartjax.image import Radiograph, Volume
from dartjax.mesh import TriangleMesh
from dartjax.observations import Observations
from dartjax.registration import (
    Disturbance,
    crop_cameras,
    disturbed_mask,
    disturbed_pose,
    observe,
)
from dartjax.render import (
    ViewRanges,
    XraySettings,
    drr,
    label_volume,
    orthogonal_views,
    simulate_radiograph,
    xray_body,
)
from experiments import cache

CROP_WIDTH_MM = 110.0
CROP_PIXELS = 128
DENSE_FIT_DICE = 0.85  # below this, landmarks carried to the true surface are not trusted
_VOXELS = 32  # grids of single vertebrae have multiples of it
_TRUTH_VERSION = "1"  # of what a registration makes of the same surface and model


@dataclasses.dataclass(frozen=True)
class CarmSetup:
    """A C-arm far enough away, and a flat panel large enough, to see T1 to L1 at once."""

    sdd: float = 1100.0  # mm
    source_to_isocenter: float = 780.0  # mm
    pixel_spacing: float = 0.56  # mm
    image_size: tuple[int, int] = (768, 768)
    num_samples: int = 500  # per ray

    @property
    def field_mm(self) -> float:
        """How much of the patient an image shows."""
        return self.pixel_spacing * self.image_size[0] * self.source_to_isocenter / self.sdd


@dataclasses.dataclass(frozen=True)
class TrueVertebra:
    """What is known of one vertebra from the CT's own mask, world mm."""

    level: str
    model: ssm.ShapeModel
    surface: TriangleMesh
    solid: metrics.Solid
    field: planning.DistanceField
    pose: transforms.SE3  # of the dense registration of the template
    dense: jax.Array  # its vertices: the template on the true surface
    landmarks: jax.Array | None  # (10, 3); None when that registration is not trusted
    paths: jax.Array  # (2, 2, 3), carried by that registration
    oracle: ssm.Registration  # best fit of the 15-mode model to the true surface
    occupancy: Volume  # 1 inside, for its projected mask
    bone: Volume  # the CT inside, 0 outside


class DenseFit(NamedTuple):
    """The template brought onto the surface of a label, and how well it fills it."""

    surface: TriangleMesh
    solid: metrics.Solid
    oracle: ssm.Registration  # best fit of the model, with its modes alone
    registration: ssm.Registration  # of the template, in correspondence
    dice: float

    @property
    def is_trusted(self) -> bool:
        """May landmarks and paths be carried by it?"""
        return self.dice > DENSE_FIT_DICE


def dense_fit(case: data.Case, level: str, model: ssm.ShapeModel) -> DenseFit:
    """Dense registration of the template to one complete level of a case."""
    label, affine = case.label_of(level), np.asarray(case.ct.world_from_voxel, np.float64)
    surface = data.surface_of(case.labels, affine, label)
    vertices, faces = np.asarray(surface.vertices, np.float64), np.asarray(surface.faces)
    origin, shape = data.grid_around(vertices)
    solid = data.solid_of(case.labels, affine, label, origin=origin, shape=shape)
    oracle, dense = _registrations(model, vertices, faces)
    fitted = mesh.voxelize(np.asarray(dense.vertices), np.asarray(model.faces), origin, shape)
    dice = metrics.dice(fitted, solid)
    return DenseFit(surface, metrics.Solid(solid, origin, 1.0), oracle, dense, dice)


def _registrations(
    model: ssm.ShapeModel, vertices: np.ndarray, faces: np.ndarray
) -> tuple[ssm.Registration, ssm.Registration]:
    """Of the model's modes and of the dense template; seconds each, so they are remembered."""

    def make() -> tuple[ssm.Registration, ssm.Registration]:
        oracle = ssm.register_surface(model, vertices, faces)
        return oracle, ssm.dense_landmarks(model, vertices, faces, coarse=oracle)

    content = [vertices, faces, *map(np.asarray, jax.tree.leaves(model))]
    # Not at import: nothing may use JAX before an experiment has chosen its devices.
    like = ssm.Registration(0, transforms.SE3.identity(), 0.0, 0, 0, 0)  # pyright: ignore
    found = cache.remembered("truths", _TRUTH_VERSION, content, (like, like), make)
    return jax.tree.map(jnp.asarray, found)


def true_vertebra(case: data.Case, level: str, model: ssm.ShapeModel) -> TrueVertebra:
    """Surface, solid, distance field, landmarks and oracle of one complete level."""
    label, fit = case.label_of(level), dense_fit(case, level, model)
    inside = Volume(jnp.asarray(case.labels == label, jnp.float32), case.ct.world_from_voxel)
    return TrueVertebra(
        level=level,
        model=model,
        surface=fit.surface,
        solid=fit.solid,
        field=planning.distance_field_from_mesh(fit.surface),
        pose=fit.registration.pose,
        dense=fit.registration.vertices,
        landmarks=fit.registration.landmarks if fit.is_trusted else None,
        paths=fit.registration.paths,
        oracle=fit.oracle,
        occupancy=_rounded_up(label_volume(inside, case.labels, label)),
        bone=_rounded_up(label_volume(case.ct, case.labels, label)),
    )


def _rounded_up(volume: Volume) -> Volume:
    """With zeros behind the last voxels, so that a few compiled programs serve all vertebrae."""
    missing = [(0, -size % _VOXELS) for size in volume.values.shape]
    return dataclasses.replace(volume, values=jnp.pad(volume.values, missing))


def middle_of(known: Sequence[TrueVertebra]) -> np.ndarray:
    """Where the C-arm is pointed to see them: the mean of their places, world mm."""
    return np.mean([np.asarray(each.pose.translation()) for each in known], axis=0)


def seen_at_once(
    known: Sequence[TrueVertebra], setup: CarmSetup = CarmSetup()
) -> list[list[TrueVertebra]]:
    """The vertebrae, from head to foot, in as many parts of like length as images are needed to
    show them all: T1 to L5 takes two places of the C-arm along the table."""
    places = np.array([np.asarray(each.pose.translation(), float) for each in known])
    along = np.linalg.norm(places - places[0], axis=1)
    num_parts = max(1, int(np.ceil(along[-1] / setup.field_mm)))
    part = np.minimum(num_parts * along / max(along[-1], 1.0), num_parts - 1).astype(int)
    parts = (
        [each for each, own in zip(known, part, strict=True) if own == k] for k in range(num_parts)
    )
    return [own for own in parts if own]


def random_views(
    rng: np.random.Generator, isocenter: np.ndarray, setup: CarmSetup, num_views: int = 2
) -> list[Camera]:
    """C-arm views with uniform primary angle and secondary angle in +-15 degrees, such that
    every two beams make an angle of 20 to 160 degrees."""
    while True:
        primary = rng.uniform(-np.pi, np.pi, num_views)
        secondary = rng.uniform(-np.pi / 12, np.pi / 12, num_views)
        views = [
            carm_view(transforms.carm_rotation(a, b), isocenter, setup)
            for a, b in zip(primary, secondary, strict=True)
        ]
        if num_views == 1 or 20.0 <= min(angles := pair_angles_deg(views)) <= max(angles) <= 160.0:
            return views


def ap_and_lateral(
    rng: np.random.Generator, isocenter: np.ndarray, setup: CarmSetup
) -> list[Camera]:
    """An AP and a left lateral view of the setup, each off by at most 5 degrees in both angles."""
    ranges = ViewRanges(
        sdd=(setup.sdd, setup.sdd),
        source_to_isocenter=(setup.source_to_isocenter, setup.source_to_isocenter),
        isocenter_shift=0.0,
    )
    views = orthogonal_views(
        jnp.asarray(isocenter, jnp.float32),
        key=jax.random.key(int(rng.integers(2**31))),
        ranges=ranges,
        detector_mm=setup.pixel_spacing * max(setup.image_size),
        image_size=setup.image_size,
    )
    return list(views)


def carm_view(rotation: transforms.SO3, isocenter: np.ndarray, setup: CarmSetup) -> Camera:
    """One view of the setup."""
    return cameras.from_carm(
        rotation,
        jnp.asarray(isocenter, jnp.float32),
        sdd=setup.sdd,
        source_to_isocenter=setup.source_to_isocenter,
        pixel_spacing=setup.pixel_spacing,
        image_size=setup.image_size,
    )


def pair_angles_deg(views: Sequence[Camera]) -> list[float]:
    """Angle between the beams of every two views."""
    return [data.angle_between(a, b) for a, b in itertools.combinations(views, 2)]


def simulate(
    ct: Volume,
    views: Sequence[Camera],
    setup: CarmSetup,
    *,
    physics: XraySettings | None = None,
    seed: int = 0,
) -> list[Radiograph]:
    """Radiographs of the whole CT: all other anatomy is in the way. Line integrals, or what a
    C-arm of the given settings would record (spectrum, scatter, noise, detector)."""
    if physics is None:
        render = jax.jit(drr, static_argnames=("num_samples",))
        return [Radiograph(render(ct, view, num_samples=setup.num_samples), view) for view in views]
    body = xray_body(ct)
    expose = jax.jit(simulate_radiograph)
    keys = jax.random.split(jax.random.key(seed), len(views))
    return [expose(body, view, physics, key=key) for view, key in zip(views, keys, strict=True)]


def true_masks(truth: TrueVertebra, crops: Sequence[Camera]) -> np.ndarray:
    """This vertebra's projection in every crop (view, h, w): more than 0.5 mm of bone."""
    images = [_projected(truth.occupancy, crop) for crop in crops]
    return np.asarray(jnp.stack(images)) > 0.5


def isolated(truth: TrueVertebra, observations: Observations) -> Observations:
    """The same evidence, but X-rays of nothing but this vertebra: what perfect isolation gives."""
    images = jax.vmap(_projected, (None, 0))(truth.bone, observations.cameras)
    return dataclasses.replace(observations, images=images)


@jax.jit
def _projected(volume: Volume, view: Camera) -> jax.Array:
    return drr(volume, view, num_samples=160)


def disturbed_observations(
    truth: TrueVertebra,
    radiographs: Sequence[Radiograph],
    rng: np.random.Generator,
    disturbance: Disturbance,
) -> tuple[Observations, transforms.SE3]:
    """The start pose and what a detector of the stated quality would see from there."""
    start = disturbed_pose(truth.pose, rng, disturbance)
    center = start.apply(jnp.mean(truth.model.mean_shape, axis=0))
    crops = crop_cameras(
        [r.camera for r in radiographs], center, width_mm=CROP_WIDTH_MM, num_pixels=CROP_PIXELS
    )
    noise_px = 6.0 * CROP_PIXELS / CROP_WIDTH_MM
    masks = np.stack(
        [
            disturbed_mask(mask, rng, disturbance.mask_dice, noise_px)
            for mask in true_masks(truth, crops)
        ]
    )
    error = rng.normal(size=(10, 3)) * disturbance.landmark_mm
    seen = None if truth.landmarks is None else truth.landmarks + jnp.asarray(error, jnp.float32)
    observations = observe(
        radiographs,
        crops,
        masks=masks,
        landmarks_world=seen,
        landmark_sigma_mm=disturbance.landmark_mm,
    )
    return observations, start
