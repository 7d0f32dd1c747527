"""Path length through each labelled vertebra along every ray, for projected masks and contours.

A vertebra is the trilinear interpolation of its label (1 inside, 0 outside, 1/2 at the surface).
Rays are traced only within its bounding box and only in detector tiles onto which the box
projects.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Integer, UInt8, UInt32

from dartjax._types import Point, Scalar
from dartjax.camera import Camera
from dartjax.render._raycast import box_depths, cells_along, gather_flat, interpolate

_TILE = 16
_TILES_AT_ONCE = 32


class Solids(eqx.Module):
    """Labelled structures of a CT, each on its own small grid.

    `cells[n, i, j, k]` holds the labels at the eight corners of one cell of structure n as
    bits (bit 4 di + 2 dj + dk), so that a sample needs one fetch instead of eight.
    """

    cells: UInt8[Array, "vertebra i j k"]
    voxel_from_world: Float[Array, "vertebra 4 4"]
    size: Float[Array, "vertebra 3"]  # voxels of the structure's box; the rest is padding
    labels: Int[Array, " vertebra"]


def vertebra_solids(
    labels: Integer[np.ndarray, "i j k"],
    affine: Float[np.ndarray, "4 4"] | Float[Array, "4 4"],
    label_list: Sequence[int],
) -> Solids:
    """Extract the structures `labels == label` from a label image with its affine (RAS+ mm).

    Host function. ValueError for an empty list or a label absent from the image.
    """
    if not label_list:
        raise ValueError("label_list is empty: give at least one label")
    boxes = [_box_of(np.asarray(labels), label) for label in label_list]
    sizes = np.array([[side.stop - side.start for side in box] for box in boxes])
    cells = np.zeros((len(boxes), *(sizes.max(0) + 1)), np.uint8)
    to_voxel = np.zeros((len(boxes), 4, 4))
    for n, (label, box) in enumerate(zip(label_list, boxes, strict=True)):
        i, j, k = sizes[n] + 1
        cells[n, :i, :j, :k] = _corner_bits(np.asarray(labels)[box] == label)
        shift = np.eye(4)
        shift[:3, 3] = [side.start for side in box]
        to_voxel[n] = np.linalg.inv(np.asarray(affine, np.float64) @ shift)
    return Solids(
        jnp.asarray(cells),
        jnp.asarray(to_voxel, jnp.float32),
        jnp.asarray(sizes, jnp.float32),
        jnp.asarray(np.array(label_list), jnp.int32),
    )


def project_solids(
    solids: Solids, camera: Camera, *, num_samples: int = 96
) -> Float[Array, "vertebra h w"]:
    """Compute the path length (mm) through each structure along every ray, 0 where it is missed.

    `num_samples` midpoint samples are spread over the part of a ray inside the structure's box
    (about one per voxel is enough). `thickness > MASK_MM` is its mask. Time grows with the
    detector area that the structures cover; structures outside the detector cost nothing. Under
    vmap all views take as long as the slowest one. No derivatives. A singular affine gives NaN.
    """
    height, width = camera.image_size
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    hit = _tiles_hit(solids, camera, rows, columns).reshape(-1)
    total = hit.shape[0]
    # Tiles that are hit come first; only the chunks they fill are traced.
    order = jnp.nonzero(hit, size=total, fill_value=total)[0].astype(jnp.int32)
    order = jnp.pad(order, (0, -total % _TILES_AT_ONCE), constant_values=total)
    chunks = -(-jnp.sum(hit) // _TILES_AT_ONCE)
    start = jnp.zeros((total, _TILE * _TILE), jnp.float32)

    def trace_chunk(chunk: Array, tiles: Array) -> Array:
        chosen = lax.dynamic_slice(order, (chunk * _TILES_AT_ONCE,), (_TILES_AT_ONCE,))
        thickness = _trace_tiles(solids, camera, chosen, columns, rows * columns, num_samples)
        return tiles.at[chosen].set(thickness, mode="drop")

    tiles = lax.fori_loop(0, chunks, trace_chunk, start)
    image = tiles.reshape(-1, rows, columns, _TILE, _TILE).transpose(0, 1, 3, 2, 4)
    return image.reshape(-1, rows * _TILE, columns * _TILE)[:, :height, :width]


MASK_MM = 0.5  # least path length inside a structure for a pixel of its mask


def solid_masks(thickness: Float[Array, "vertebra h w"]) -> Bool[Array, "vertebra h w"]:
    """Compute the masks of structures: pixels whose ray runs more than 0.5 mm inside them."""
    return thickness > MASK_MM


def _box_of(labels: np.ndarray, label: int) -> tuple[slice, slice, slice]:
    mask = labels == label
    if not mask.any():
        raise ValueError(f"label {label} is not in the label image: give a label that is present")
    spans = [np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    i, j, k = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return i, j, k


def _corner_bits(mask: Bool[np.ndarray, "i j k"]) -> UInt8[np.ndarray, "i1 j1 k1"]:
    """Corner bits of every cell that touches the mask; the first cell starts one voxel before
    it."""
    padded = np.pad(mask, 1).astype(np.uint8)
    i, j, k = mask.shape
    bits = np.zeros((i + 1, j + 1, k + 1), np.uint8)
    for bit, (di, dj, dk) in enumerate(np.ndindex(2, 2, 2)):
        bits |= padded[di : di + i + 1, dj : dj + j + 1, dk : dk + k + 1] << bit
    return bits


def _tiles_hit(
    solids: Solids, camera: Camera, rows: int, columns: int
) -> Bool[Array, "vertebra row column"]:
    """Find the detector tiles within the bounding rectangle of each projected box; all tiles when
    part of the box is not in front of the source."""
    corners = jnp.array(list(np.ndindex(2, 2, 2)), jnp.float32)

    def rectangle(voxel_from_world: Array, size: Array) -> tuple[Array, Array]:
        voxels = corners * (size + 1.0)[None] - 1.0
        world_from_voxel = jnp.linalg.inv(voxel_from_world)
        camera_from_voxel = camera.camera_from_world.as_matrix() @ world_from_voxel
        points = voxels @ camera_from_voxel[:3, :3].T + camera_from_voxel[:3, 3][None]
        in_front = points[:, 2] > 1.0
        depths = jnp.where(in_front, points[:, 2], 1.0)[:, None]
        pixels = points[:, :2] / depths * camera.focal_length[None] + camera.principal_point[None]
        whole = jnp.all(in_front)
        return jnp.where(whole, pixels.min(0), -1e9), jnp.where(whole, pixels.max(0), 1e9)

    low, high = jax.vmap(rectangle)(solids.voxel_from_world, solids.size)
    along_u, along_v = (
        (low[:, axis, None] < _TILE * (first + 1.0)) & (high[:, axis, None] > _TILE * first)
        for axis, first in ((0, jnp.arange(columns)[None]), (1, jnp.arange(rows)[None]))
    )
    return along_v[:, :, None] & along_u[:, None, :]


def _trace_tiles(
    solids: Solids, camera: Camera, chosen: Int[Array, " tile"], columns: int, tiles: int, samples
) -> Float[Array, "tile pixel"]:
    """Trace the pixels of tiles, which are numbered by structure, row and column."""
    inside = jnp.minimum(chosen, solids.cells.shape[0] * tiles - 1)
    structure, tile = inside // tiles, inside % tiles
    row, column = tile // columns * _TILE, tile % columns * _TILE
    dv, du = (axis.reshape(-1) for axis in jnp.mgrid[:_TILE, :_TILE])
    to_voxel = solids.voxel_from_world @ camera.world_from_camera.as_matrix()[None]

    def rays(structure: Array, row: Array, column: Array) -> tuple[Array, ...]:
        pixels = jnp.stack([column + du, row + dv], axis=-1) + 0.5
        offset = pixels - camera.principal_point[None]
        tangents = offset / camera.focal_length[None]
        direction = jnp.concatenate([tangents, jnp.ones_like(tangents[:, :1])], axis=1)
        mm_per_depth = jnp.linalg.norm(direction, axis=1)
        matrix, size = to_voxel[structure], solids.size[structure]
        source, direction = matrix[:3, 3], direction @ matrix[:3, :3].T
        enter, leave = box_depths(
            source[None, None], direction[:, None], size[None, None], camera.sdd
        )
        # Cells start one voxel before the box.
        start = source[None] + 1.0 + enter * direction
        end = source[None] + 1.0 + leave * direction
        return start, end, (leave - enter)[:, 0] * mm_per_depth

    starts, ends, lengths = jax.vmap(rays)(structure, row, column)
    first = structure.astype(jnp.uint32) * np.uint32(np.prod(solids.cells.shape[1:]))
    first = jnp.broadcast_to(first[:, None], lengths.shape)
    flat = solids.cells.reshape(-1)

    def integrate(start: Point, end: Point, first: UInt32[Array, ""]) -> Scalar:
        return _mean_of_bits(flat, solids.cells.shape[1:], first, start, end, samples)

    mean = jax.vmap(jax.vmap(integrate))(starts, ends, first)
    return mean * lengths


def _mean_of_bits(
    flat: UInt8[Array, " n"],
    shape: tuple[int, ...],
    first: UInt32[Array, ""],
    start: Point,
    end: Point,
    num_samples: int,
) -> Scalar:
    """Mean of one structure's trilinear field along a segment, in cell coordinates."""
    step = end - start
    corner_shape = tuple(side + 1 for side in shape)

    def add_sample(sample: Array, total: Scalar) -> Scalar:
        x, y, z = cells_along(corner_shape, start, step, (sample + 0.5) / num_samples)
        index = (x[0] * np.uint32(shape[1]) + y[0]) * np.uint32(shape[2]) + z[0]
        bits = gather_flat(flat, first + index).astype(jnp.int32)
        corners = [
            [[_bit(bits, 4 * i + 2 * j + k) for k in (0, 1)] for j in (0, 1)] for i in (0, 1)
        ]
        return total + interpolate(corners, x[1], y[1], z[1])

    return lax.fori_loop(0, num_samples, add_sample, jnp.zeros(())) / num_samples


def _bit(bits: Int[Array, "*n"], position: int) -> Float[Array, "*n"]:
    return (lax.shift_right_logical(bits, np.int32(position)) & np.int32(1)).astype(jnp.float32)
