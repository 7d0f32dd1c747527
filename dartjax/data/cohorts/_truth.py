"""The true surface and solid of a labelled vertebra, from one smooth signed distance.

A label image is a staircase, coarse along thick slices. Its signed distance, sampled every
0.7 mm along the image's own axes, is smooth across slices (shape-based interpolation, Raya and
Udupa 1990), and its zero level is the truth that surfaces, solids and landmarks come from.
"""

from typing import cast

import jax.numpy as jnp
import numpy as np
import trimesh
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from scipy.ndimage import distance_transform_edt
from skimage import measure

from dartjax._errors import DataError
from dartjax.mesh import TriangleMesh

STEP_MM = 0.7
MARGIN_MM = 5.0
SMOOTHING_MM = 0.8


def surface_of(
    labels: UInt8[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"], label: int
) -> TriangleMesh:
    """Closed surface of a label in world mm, faces outward, about 0.7 mm between vertices.

    Marching cubes on the smooth signed distance, then Taubin smoothing, which keeps volume.
    Only the largest connected part is kept; a part cut by the image's border is closed there.
    DataError if the label is absent.
    """
    distance, world_from_fine = _signed_distance(labels, affine, label)
    vertices, faces, _, _ = measure.marching_cubes(distance, 0.0, gradient_direction="descent")
    vertices = vertices @ world_from_fine[:3, :3].T + world_from_fine[:3, 3]
    if np.linalg.det(world_from_fine[:3, :3]) < 0:
        faces = faces[:, ::-1]
    surface = trimesh.Trimesh(vertices, faces, process=False)
    trimesh.smoothing.filter_taubin(surface, lamb=0.5, nu=0.53, iterations=10)
    return TriangleMesh(
        jnp.asarray(surface.vertices, jnp.float32), jnp.asarray(surface.faces, jnp.int32)
    )


def solid_of(
    labels: UInt8[np.ndarray, "i j k"],
    affine: Float[np.ndarray, "4 4"],
    label: int,
    *,
    origin: Float[np.ndarray, "3"],
    shape: tuple[int, int, int],
    spacing: float = 1.0,
) -> Bool[np.ndarray, "x y z"]:
    """The same truth as `surface_of` on a grid along the world's axes: voxel (i, j, k) has its
    centre at origin + spacing (i, j, k), mm, as in `mesh.voxelize`."""
    distance, world_from_fine = _signed_distance(labels, affine, label)
    fine_from_world = np.linalg.inv(world_from_fine)
    matrix = fine_from_world[:3, :3] * spacing
    offset = fine_from_world[:3, :3] @ origin + fine_from_world[:3, 3]
    sampled = ndimage.affine_transform(
        distance, matrix, offset.tolist(), output_shape=shape, order=1, mode="constant", cval=1.0
    )
    return sampled < 0.0


def grid_around(
    vertices: Float[np.ndarray, "vertex 3"], *, margin_mm: float = 5.0, spacing: float = 1.0
) -> tuple[Float[np.ndarray, "3"], tuple[int, int, int]]:
    """Origin and shape of the world-aligned grid that holds the points with a margin."""
    low = np.floor(vertices.min(0) - margin_mm).astype(float)
    count = np.ceil((vertices.max(0) + margin_mm - low) / spacing).astype(int) + 1
    return low, (int(count[0]), int(count[1]), int(count[2]))


def _signed_distance(
    labels: UInt8[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"], label: int
) -> tuple[Float[np.ndarray, "a b c"], Float[np.ndarray, "4 4"]]:
    """Signed distance in mm, negative inside, on a 0.7 mm grid along the image's axes around
    the label, with that grid's world_from_voxel."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    mask, start = _padded_mask(labels, label, np.ceil(MARGIN_MM / spacing).astype(int))
    coarse = _distance_of(mask, spacing)
    step = STEP_MM / spacing  # coarse voxels per fine voxel
    shape = tuple(np.floor((np.array(mask.shape) - 1) / step).astype(int) + 1)
    fine = ndimage.affine_transform(coarse, step, output_shape=shape, order=3, mode="nearest")
    fine = ndimage.gaussian_filter(fine, SMOOTHING_MM / STEP_MM)
    fine = _restore_volume(fine, mask.sum() / step.prod())
    world_from_fine = affine @ _scale_and_shift(step, start)
    return _off_zero(_one_solid(fine)), world_from_fine


def _distance_of(
    mask: Bool[np.ndarray, "a b c"], spacing: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "a b c"]:
    inside, outside = (np.asarray(distance_transform_edt(m, spacing)) for m in (mask, ~mask))
    return (outside - inside).astype(np.float32)


def _restore_volume(
    distance: Float[np.ndarray, "a b c"], num_inside: float
) -> Float[np.ndarray, "a b c"]:
    """Shift the zero level so that the label's own volume lies inside: smoothing shrinks
    convex parts, some 2 % of a vertebra."""
    count = round(num_inside)
    return distance - np.partition(distance.ravel(), count)[count]


def _off_zero(distance: Float[np.ndarray, "a b c"]) -> Float[np.ndarray, "a b c"]:
    """No sample within a micrometre of zero, where marching cubes makes slivers and pinches."""
    tiny = np.float32(1e-3)
    return np.where(np.abs(distance) < tiny, np.where(distance < 0.0, -tiny, tiny), distance)


def _padded_mask(
    labels: UInt8[np.ndarray, "i j k"], label: int, margin: np.ndarray
) -> tuple[Bool[np.ndarray, "a b c"], Float[np.ndarray, "3"]]:
    """The label's box with an empty margin all round, and the index of its first voxel."""
    mask = labels == label
    if not mask.any():
        raise DataError(f"label {label} is not in the mask")
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    padded = np.pad(mask[box], [(int(m), int(m)) for m in margin])
    return padded, np.array([side.start for side in box], float) - margin


def _scale_and_shift(
    step: Float[np.ndarray, "3"], start: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "4 4"]:
    matrix = np.diag([*step, 1.0])
    matrix[:3, 3] = start
    return matrix


def _one_solid(distance: Float[np.ndarray, "a b c"]) -> Float[np.ndarray, "a b c"]:
    """Push every part but the largest, every cavity, and tunnels as thin as one sample (a
    lamina with a pinhole is no second canal) to the other side of zero."""
    parts, count = cast(tuple[np.ndarray, int], ndimage.label(distance < 0.0))
    if count == 0:
        raise DataError("the label is too small or thin to give a surface")
    largest = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    cross = ndimage.generate_binary_structure(3, 1)
    filled = np.asarray(ndimage.binary_fill_holes(ndimage.binary_closing(largest, cross)), bool)
    level = np.float32(0.05)
    distance = np.where((distance < 0.0) & ~filled, level, distance)
    return np.where((distance >= 0.0) & filled, -level, distance)
