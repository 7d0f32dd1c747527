"""Voxelised solids on a regular grid, on the host: filling, connected parts, distances."""

from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from dartjax import mesh


class Solid(NamedTuple):
    """A voxelised mesh: voxel centres at origin + spacing * index, mm."""

    occupancy: Bool[np.ndarray, "i j k"]
    origin: Float[np.ndarray, "3"]
    spacing: float

    def axis(self, dimension: int) -> Float[np.ndarray, " n"]:
        """Coordinates of the voxel centres along one axis, mm."""
        return self.origin[dimension] + self.spacing * np.arange(self.occupancy.shape[dimension])


def solid_of(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    spacing: float = 0.5,
) -> Solid:
    """Voxelise a closed mesh on a grid with a margin of two voxels."""
    # Half-voxel offset: the midline x = 0 is between voxels, so both sides are treated equally.
    lower = (np.floor(vertices.min(0) / spacing) - 1.5) * spacing
    i, j, k = (int(n) + 2 for n in np.ceil((vertices.max(0) - lower) / spacing))
    filled = mesh.voxelize(vertices, faces, lower, (i, j, k), spacing)
    return Solid(filled, lower, spacing)


def label_parts(mask: Bool[np.ndarray, "*shape"]) -> tuple[Int[np.ndarray, "*shape"], int]:
    """Label connected parts (neighbours share a face) from 1, and count them."""
    return cast(tuple[np.ndarray, int], ndimage.label(mask))


def inner_distance(mask: Bool[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Compute the distance of each set element to the nearest unset one, in elements; 0 outside."""
    # Restricted to the bounding box of the set elements and its rim: sections are mostly empty.
    box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in _box(mask))
    distance = np.zeros(mask.shape)
    distance[box] = ndimage.distance_transform_edt(mask[box])
    return distance


def _box(mask: Bool[np.ndarray, "*shape"]) -> tuple[slice, ...]:
    found = ndimage.find_objects(mask.astype(np.uint8), max_label=1)[0]
    return found if found is not None else tuple(slice(0, 0) for _ in mask.shape)
