"""Ground truth of the vertebrae in a case with a CT: surface, landmarks, paths and masks."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import data, mesh, metrics, planning, ssm, transforms
from dartjax.camera import Camera
from dartjax.image import Volume
from dartjax.mesh import TriangleMesh
from dartjax.observations import Observations
from dartjax.render import (
    drr,
    label_volume,
)
from dartjax.ssm import build

DENSE_FIT_DICE = 0.85  # below this, landmarks carried to the true surface are not trusted
_VOXELS = 32  # sides of single-vertebra grids are multiples of it
_TRUTH_VERSION = "1"  # increase when a registration gives other results for the same input


@dataclasses.dataclass(frozen=True)
class TrueVertebra:
    """Ground truth of one vertebra from the mask of its CT, world mm."""

    level: str
    model: ssm.ShapeModel
    surface: TriangleMesh
    solid: metrics.Solid
    field: planning.DistanceField
    pose: transforms.SE3  # of the dense registration of the template
    dense: jax.Array  # vertices of that registration: the template on the true surface
    landmarks: jax.Array | None  # (10, 3); None if that registration is not trusted
    paths: jax.Array  # (2, 2, 3), transferred by that registration
    oracle: ssm.Registration  # best fit of the 15-mode model to the true surface
    occupancy: Volume  # 1 inside, for projected masks
    bone: Volume  # the CT inside, 0 outside


class DenseFit(NamedTuple):
    """Template registered to the surface of a label, and its Dice with the label."""

    surface: TriangleMesh
    solid: metrics.Solid
    oracle: ssm.Registration  # best fit of the model with its modes alone
    registration: ssm.Registration  # of the template, in correspondence
    dice: float

    @property
    def is_trusted(self) -> bool:
        """Whether the fit is accurate enough to transfer landmarks and paths."""
        return self.dice > DENSE_FIT_DICE


def dense_fit(case: data.Case, level: str, model: ssm.ShapeModel) -> DenseFit:
    """Register the template densely to one complete level of a case."""
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
    """Registrations of the model's modes and of the dense template; cached, since each takes
    seconds."""

    def make() -> tuple[ssm.Registration, ssm.Registration]:
        oracle = ssm.register_surface(model, vertices, faces)
        return oracle, build.dense_landmarks(model, vertices, faces, coarse=oracle)

    content = [vertices, faces, *map(np.asarray, jax.tree.leaves(model))]
    # Not at import: JAX must not be used before an experiment has selected its devices.
    like = ssm.Registration(0, transforms.SE3.identity(), 0.0, 0, 0, 0)  # pyright: ignore
    found = data.remembered("truths", _TRUTH_VERSION, content, (like, like), make)
    return jax.tree.map(jnp.asarray, found)


def true_vertebra(case: data.Case, level: str, model: ssm.ShapeModel) -> TrueVertebra:
    """Compute the ground truth of one complete level of a case."""
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
        occupancy=_padded(label_volume(inside, case.labels, label)),
        bone=_padded(label_volume(case.ct, case.labels, label)),
    )


def _padded(volume: Volume) -> Volume:
    """Volume padded with zeros, so that a few compiled programs serve all vertebrae."""
    missing = [(0, -size % _VOXELS) for size in volume.values.shape]
    return dataclasses.replace(volume, values=jnp.pad(volume.values, missing))


def true_masks(truth: TrueVertebra, crops: Sequence[Camera]) -> np.ndarray:
    """Project the vertebra's mask to every crop (view, h, w): more than 0.5 mm of bone."""
    images = [_projected(truth.occupancy, crop) for crop in crops]
    return np.asarray(jnp.stack(images)) > 0.5


def isolated(truth: TrueVertebra, observations: Observations) -> Observations:
    """Replace the X-rays of observations by X-rays of this vertebra alone (perfect isolation)."""
    images = jax.vmap(_projected, (None, 0))(truth.bone, observations.cameras)
    return dataclasses.replace(observations, images=images)


@jax.jit
def _projected(volume: Volume, view: Camera) -> jax.Array:
    return drr(volume, view, num_samples=160)
