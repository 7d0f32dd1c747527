"""Signed distance fields of bone surfaces."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float
from scipy.ndimage import distance_transform_edt

from dartjax import metrics
from dartjax._numerics import safe_norm
from dartjax._types import Matrix4, Points
from dartjax.mesh import TriangleMesh

EXACT_BAND_MM = 8.0  # distance from the surface within which the field of a mesh is exact


class DistanceField(eqx.Module):
    """Signed distance field in mm on a grid, negative inside the bone.

    `values[i, j, k]` is the distance at `world_from_voxel @ (i, j, k, 1)`, world RAS+ mm.
    """

    values: Float[Array, "i j k"]
    world_from_voxel: Matrix4


def signed_distance(field: DistanceField, points: Points) -> Float[Array, " n"]:
    """Interpolate the signed distance at world points (trilinear), mm; differentiable.

    Outside the grid the result is the value at the nearest point of the grid plus the distance to
    that point, an upper bound of the true distance.
    """
    linear, offset = field.world_from_voxel[:3, :3], field.world_from_voxel[:3, 3]
    index = jnp.linalg.solve(linear, (points - offset[None]).T)
    last = jnp.array(field.values.shape, index.dtype)[:, None] - 1.0
    inside = jnp.clip(index, 0.0, last)
    distance = map_coordinates(field.values, list(inside), order=1, mode="nearest")
    return distance + safe_norm((linear @ (index - inside)).T)


def distance_field_from_solid(
    occupancy: Bool[np.ndarray, "i j k"], world_from_voxel: Float[np.ndarray, "4 4"]
) -> DistanceField:
    """Make the distance field of a label mask by the Euclidean distance transform, on the host.

    The transform measures to the centre of the nearest voxel of the other class; the wall is
    half a voxel nearer. The field is exact for walls along a grid of isotropic voxels, otherwise
    within half the longest voxel edge: prefer `distance_field_from_mesh` for thick slices. Raises
    ValueError if the mask is empty or full, or if the affine is sheared.
    """
    linear = np.asarray(world_from_voxel, np.float64)[:3, :3]
    spacing = np.linalg.norm(linear, axis=0)
    if not np.allclose(linear.T @ linear, np.diag(spacing**2), atol=1e-3 * spacing.min() ** 2):
        raise ValueError("world_from_voxel is sheared: resample the mask to a regular grid first")
    if occupancy.all() or not occupancy.any():
        raise ValueError("the mask is empty or full: it has no surface to measure from")
    outside, inside = (_distance_to_wall(mask, spacing) for mask in (~occupancy, occupancy))
    values = np.where(occupancy, -inside, outside)
    return DistanceField(
        jnp.asarray(values, jnp.float32), jnp.asarray(world_from_voxel, jnp.float32)
    )


def distance_field_from_mesh(
    mesh: TriangleMesh, *, spacing: float = 1.0, margin_mm: float = 10.0
) -> DistanceField:
    """Make the distance field of a closed mesh, on the host.

    Within 8 mm of the surface the grid values are accurate to about 0.02 mm (see
    `metrics.distance_to_surface`), so the main error is the interpolation between them. Values
    farther away come from the voxelised mesh and are accurate to half a voxel.
    """
    solid = metrics.solid_of(mesh, spacing, margin_mm)
    world_from_voxel = np.diag([spacing, spacing, spacing, 1.0])
    world_from_voxel[:3, 3] = solid.origin
    coarse = distance_field_from_solid(solid.occupancy, world_from_voxel)
    values = np.array(coarse.values)
    near = np.argwhere(np.abs(values) < EXACT_BAND_MM)
    distance = metrics.distance_to_surface(solid.origin + spacing * near, mesh)
    near = tuple(near.T)
    values[near] = np.where(solid.occupancy[near], -distance, distance)
    return DistanceField(jnp.asarray(values), coarse.world_from_voxel)


def _distance_to_wall(
    mask: Bool[np.ndarray, "i j k"], spacing: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "i j k"]:
    """Compute the distance of every voxel of the mask to the wall, half a voxel before the nearest
    voxel outside the mask."""
    nearest = np.asarray(
        distance_transform_edt(mask, sampling=spacing, return_distances=False, return_indices=True)
    )
    step = (nearest - np.indices(mask.shape)) * spacing[:, None, None, None]
    distance = np.linalg.norm(step, axis=0)
    half_voxel = 0.5 * np.linalg.norm(step * spacing[:, None, None, None], axis=0)
    return distance - half_voxel / np.maximum(distance, spacing.min())
