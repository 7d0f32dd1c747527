"""Ray-cast radiographs (DRRs) of a volume: line integrals along the detector rays.

The field is the trilinear interpolation of the voxel values with zeros beyond the grid. It equals
the sample at a voxel centre and falls linearly to 0 over one voxel outside the outermost centres,
so its support is [-1, n] in voxel coordinates along an axis of n voxels. It is linear in the
values, so the DRRs of disjoint parts add up to the DRR of the whole.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float, Integer, Num, UInt32

from dartjax._types import Image, Point, Scalar
from dartjax.camera import Camera, pixel_centers
from dartjax.image import Volume

_Axis = tuple[Array, tuple[Array, Array], tuple[Array, Array]]


def drr(
    volume: Volume, camera: Camera, *, num_samples: int = 500, rays_per_chunk: int = 32768
) -> Image:
    """Render the line integrals of `volume` from the source to every pixel centre.

    The image (h, w) is dimensionless for attenuation in 1/mm.

    Each ray is clipped to the support of the field and to the detector. The midpoint rule places
    `num_samples` samples inside, with an error of second order in the step. Reverse and forward
    derivatives with respect to the camera (pose, focal length, principal point, sdd) are exact
    derivatives of that sum, clipping included. The gradient with respect to `volume.values` is
    ZERO by design (see `line_integral`); the gradient with respect to `world_from_voxel` is not.

    `rays_per_chunk` bounds the memory and does not change the result; under vmap it is per
    camera. Rays of one image column are traced together, which is fastest when the last voxel
    axis runs along the columns (superior, in an RAS volume). A singular affine gives NaN.
    """
    values = volume.values

    def integrate(ray: tuple[Point, Point, Scalar]) -> Scalar:
        return line_integral(values, *ray, num_samples)

    return _trace(volume, camera, integrate, rays_per_chunk)


class PiecewiseLinear(eqx.Module):
    """Piecewise linear function f(x) = sum over knots of slope_change * max(x - knot, 0).

    It is 0 below the first knot and continues with the last slope beyond the last knot."""

    knots: Float[Array, " knot"]
    slope_changes: Float[Array, " knot"]

    def __call__(self, x: Float[Array, "*samples"]) -> Float[Array, "*samples"]:
        """Evaluate f at every x."""
        total = jnp.zeros_like(x)
        for knot, change in zip(self.knots, self.slope_changes, strict=True):
            above = x - knot
            total = total + change * jnp.where(above > 0.0, above, 0.0)
        return total

    def slope(self, x: Float[Array, "*samples"]) -> Float[Array, "*samples"]:
        """Compute the derivative of f at every x, from the right at a knot."""
        total = jnp.zeros_like(x)
        for knot, change in zip(self.knots, self.slope_changes, strict=True):
            total = total + jnp.where(x >= knot, change, 0.0)
        return total


def paired_drr(
    volume: Volume,
    function: PiecewiseLinear,
    camera: Camera,
    *,
    num_samples: int = 500,
    rays_per_chunk: int = 32768,
) -> tuple[Image, Image]:
    """Render the line integrals of the field V and of function(V): two images (h, w).

    The first is `drr`; the second adds little time, because both use the same fetched voxels.
    Derivatives with respect to the camera are as in `drr`; derivatives with respect to the values
    and the function are ZERO by design. ValueError for `num_samples` below 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}: at least one sample a ray is needed")
    values = _at_least_two(volume.values)

    def integrate(ray: tuple[Point, Point, Scalar]) -> Complex[Array, ""]:
        start, end, length = ray
        first, second = _pair_along(values, function, start, end, num_samples)
        return lax.complex(length * first, length * second)

    pair = _trace(volume, camera, integrate, rays_per_chunk)
    return jnp.real(pair), jnp.imag(pair)


def _trace(volume: Volume, camera: Camera, integrate, rays_per_chunk: int) -> Array:
    """Evaluate integrate((start, end, length)) for every pixel's ray, as an image (h, w)."""
    starts, ends, lengths = _clipped_rays(volume, camera)
    rays = (starts.reshape(-1, 3), ends.reshape(-1, 3), lengths.reshape(-1))
    image = lax.map(integrate, rays, batch_size=rays_per_chunk)
    height, width = camera.image_size
    return image.reshape(width, height).T


def line_integral(
    values: Float[Array, "i j k"], start: Point, end: Point, length: Scalar, num_samples: int
) -> Scalar:
    """Integrate the trilinear field along one segment by the midpoint rule:
    length / S * sum_s V(start + (s + 1/2) / S (end - start)).

    `start` and `end` are in voxel coordinates (integers at voxel centres), `length` is the
    length of the segment in mm. Outside the grid the field falls to 0 as this module states.

    THE DERIVATIVE WITH RESPECT TO `values` IS ZERO BY DESIGN, as under `lax.stop_gradient`:
    poses, intrinsics and grids are fitted, voxels are not, and without a scatter into the volume
    a gradient takes little longer than an image. The derivatives with respect to `start` and `end`
    are accumulated in the same pass as the value: length / S times the sum of (1 - u_s) grad V and
    of u_s grad V. At voxel faces, where the field has a kink, the derivative is from the right.
    ValueError for `num_samples` below 1.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}: at least one sample a ray is needed")
    return length * _mean_along(_at_least_two(values), start, end, num_samples)


def label_volume(
    volume: Volume, labels: Integer[np.ndarray | Array, "i j k"], label: int
) -> Volume:
    """Extract the part of `volume` where `labels == label`, cropped to its bounding box, else 0.

    The affine is shifted with the crop. `drr` of the result shows that structure alone, at a
    fraction of the cost; `drr` of the whole volume minus it shows everything else. Host function.
    ValueError when the grids differ or the label is absent.
    """
    mask = np.asarray(labels) == label
    if mask.shape != volume.values.shape:
        raise ValueError(
            f"labels have shape {mask.shape}, the volume {volume.values.shape}: resample the "
            "labels onto the volume's grid"
        )
    if not mask.any():
        raise ValueError(f"label {label} is not in the label array: give a label that is present")
    spans = [np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    window = tuple(slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    values = np.where(mask[window], np.asarray(volume.values[window]), 0.0)
    shift = np.eye(4)
    shift[:3, 3] = [axis.start for axis in window]
    affine = np.asarray(volume.world_from_voxel) @ shift
    return Volume(
        jnp.asarray(values, volume.values.dtype),
        jnp.asarray(affine, volume.world_from_voxel.dtype),
    )


def _clipped_rays(
    volume: Volume, camera: Camera
) -> tuple[Float[Array, "w h 3"], Float[Array, "w h 3"], Float[Array, "w h"]]:
    """Compute where rays enter and leave the support (voxel coordinates), and the mm between.

    A ray is source + t * direction with t the depth in mm, from 0 to sdd. The image is
    transposed, so that consecutive rays run down its columns.
    """
    voxel_from_camera = (
        jnp.linalg.inv(volume.world_from_voxel) @ camera.world_from_camera.as_matrix()
    )
    offset = pixel_centers(camera).swapaxes(0, 1) - camera.principal_point[None, None]
    tangents = offset / camera.focal_length[None, None]
    direction = jnp.concatenate([tangents, jnp.ones_like(tangents[..., :1])], axis=-1)
    mm_per_depth = jnp.linalg.norm(direction, axis=-1)
    source, direction = voxel_from_camera[:3, 3], direction @ voxel_from_camera[:3, :3].T
    shape = jnp.array(volume.values.shape, direction.dtype)
    enter, leave = box_depths(source[None, None], direction, shape[None, None], camera.sdd)
    start = source[None, None] + enter[..., None] * direction
    end = source[None, None] + leave[..., None] * direction
    return start, end, (leave - enter) * mm_per_depth


def box_depths(
    source: Float[Array, "1 1 3"],
    direction: Float[Array, "w h 3"],
    shape: Float[Array, "1 1 3"],
    farthest: Scalar,
) -> tuple[Float[Array, "w h"], Float[Array, "w h"]]:
    """Compute the depths at which rays enter and leave the box [-1, shape]; equal if they miss."""
    # A ray parallel to a face crosses it far away on the correct side, which avoids 0 / 0.
    slope = jnp.where(jnp.abs(direction) < 1e-12, 1e-12, direction)
    low, high = (-1.0 - source) / slope, (shape - source) / slope
    enter = jnp.max(jnp.minimum(low, high), axis=-1)
    leave = jnp.min(jnp.maximum(low, high), axis=-1)
    enter = jnp.clip(enter, 0.0, farthest)
    return enter, jnp.maximum(jnp.clip(leave, 0.0, farthest), enter)


def _at_least_two(values: Float[Array, "i j k"]) -> Float[Array, "i2 j2 k2"]:
    # A cell needs two corners; an additional layer of zeros does not change the field.
    return jnp.pad(values, [(0, max(0, 2 - size)) for size in values.shape])


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _mean_along(
    values: Float[Array, "i j k"], start: Point, end: Point, num_samples: int
) -> Scalar:
    # A loop over samples for all rays of a chunk: one vectorised kernel per step.
    step = end - start

    def add_sample(sample: Array, total: Scalar) -> Scalar:
        x, y, z = cells_along(values.shape, start, step, (sample + 0.5) / num_samples)
        corners = _corners(values, (x[0], y[0], z[0]))
        return total + interpolate(corners, x[1], y[1], z[1])

    return lax.fori_loop(0, num_samples, add_sample, jnp.zeros((), start.dtype)) / num_samples


@_mean_along.defjvp
def _mean_along_jvp(num_samples, primals, tangents):
    values, start, end = primals
    _, start_dot, end_dot = tangents  # no tangent for the values, see line_integral
    (mean,), ((by_start, by_end),) = _means_and_slopes(values, (), start, end, num_samples)
    return mean, jnp.vdot(by_start, start_dot) + jnp.vdot(by_end, end_dot)


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _pair_along(
    values: Float[Array, "i j k"],
    function: PiecewiseLinear,
    start: Point,
    end: Point,
    num_samples: int,
) -> tuple[Scalar, Scalar]:
    # Both sums are one complex number: for two outputs XLA makes two kernels, each of which
    # fetches all voxels (2.8 times the time of one sum instead of 1.1).
    step = end - start

    def add_sample(sample: Array, total: Array) -> Array:
        x, y, z = cells_along(values.shape, start, step, (sample + 0.5) / num_samples)
        corners = _corners(values, (x[0], y[0], z[0]))
        value = interpolate(corners, x[1], y[1], z[1])
        return total + lax.complex(value, function(value))

    zero = lax.complex(jnp.zeros((), start.dtype), jnp.zeros((), start.dtype))
    total = lax.fori_loop(0, num_samples, add_sample, zero) / num_samples
    return jnp.real(total), jnp.imag(total)


@_pair_along.defjvp
def _pair_along_jvp(num_samples, primals, tangents):
    values, function, start, end = primals
    _, _, start_dot, end_dot = tangents  # as in _mean_along_jvp
    means, slopes = _means_and_slopes(values, (function,), start, end, num_samples)
    dots = [
        jnp.vdot(at_start, start_dot) + jnp.vdot(at_end, end_dot) for at_start, at_end in slopes
    ]
    return tuple(means), tuple(dots)


def _means_and_slopes(
    values: Float[Array, "i j k"],
    functions: tuple[PiecewiseLinear, ...],
    start: Point,
    end: Point,
    num_samples: int,
) -> tuple[list[Scalar], list[tuple[Point, Point]]]:
    """Compute the means along a segment of the field and of functions of it, and their
    derivatives with respect to both ends.

    One reduction of seven operands per mean: XLA fuses it into one kernel that fetches the
    corners once; separate sums would fetch them for every output.
    """
    at = (jnp.arange(num_samples, dtype=start.dtype) + 0.5) / num_samples
    x, y, z = cells_along(values.shape, start, end - start, at)
    corners = _corners(values, (x[0], y[0], z[0]))
    value = interpolate(corners, x[1], y[1], z[1])
    slopes = (
        interpolate(corners, x[2], y[1], z[1]),
        interpolate(corners, x[1], y[2], z[1]),
        interpolate(corners, x[1], y[1], z[2]),
    )
    terms = [value, *((1.0 - at) * slope for slope in slopes), *(at * slope for slope in slopes)]
    for function in functions:
        chain = function.slope(value)
        terms += [function(value), *(chain * term for term in terms[1:7])]
    zeros = [jnp.zeros((), term.dtype) for term in terms]
    means = [total / num_samples for total in lax.reduce(terms, zeros, _add, (0,))]
    groups = [means[i : i + 7] for i in range(0, len(means), 7)]
    return [m[0] for m in groups], [(jnp.stack(m[1:4]), jnp.stack(m[4:])) for m in groups]


def _add(left, right):
    return tuple(a + b for a, b in zip(left, right, strict=True))


def cells_along(
    shape: tuple[int, ...], start: Point, step: Point, at: Float[Array, "*samples"]
) -> list[_Axis]:
    # One axis at a time: vectors of three are strided in memory and are not vectorised.
    return [_cell(start[axis] + at * step[axis], size) for axis, size in enumerate(shape)]


def _cell(position: Float[Array, "*samples"], size: int) -> _Axis:
    """Locate positions along one axis: index of the lower corner, weights and slopes of both.

    The cell is kept inside the grid and hat functions weight its corners, which gives the linear
    fall to 0 outside the grid without a test of bounds.
    """
    index, lower = _lower_corner(position, size)
    offset = position - lower
    weights = (_hat(offset), _hat(offset - 1.0))
    return index, weights, (_hat_slope(offset), _hat_slope(offset - 1.0))


def _lower_corner(
    position: Float[Array, "*samples"], size: int
) -> tuple[UInt32[Array, "*samples"], Float[Array, "*samples"]]:
    """Compute floor(position) clipped to [0, size - 2], as an index and as a float.

    In float32 both are read from the bits of 2^23 + floor(position), which are ordered as
    integers. XLA's saturating conversion and NaN-propagating clamp are not vectorised on CPU: with
    them an image takes 1.6 times as long.
    """
    whole = jnp.floor(position)
    if position.dtype != jnp.float32:
        lower = jnp.clip(whole, 0, size - 2)
        return lower.astype(jnp.uint32), lower
    shift = np.float32(2**23)
    first = shift.view(np.int32)
    bits = lax.bitcast_convert_type(whole + shift, jnp.int32)
    bits = lax.clamp(first, bits, first + np.int32(size - 2))
    return (bits - first).astype(jnp.uint32), lax.bitcast_convert_type(bits, jnp.float32) - shift


def _hat(x: Float[Array, "*samples"]) -> Float[Array, "*samples"]:
    height = 1.0 - jnp.abs(x)
    return jnp.where(height > 0.0, height, 0.0)  # vectorised on CPU, unlike maximum


def _hat_slope(x: Float[Array, "*samples"]) -> Float[Array, "*samples"]:
    inside = (x >= -1.0) & (x < 1.0)
    return jnp.where(inside, jnp.where(x < 0.0, 1.0, -1.0), 0.0).astype(x.dtype)


def _corners(values: Float[Array, "i j k"], lower: tuple[Array, Array, Array]):
    """Fetch the values at the eight corners of a cell, indexed [i][j][k]."""
    _, nj, nk = values.shape
    flat = values.reshape(-1)
    base = lower[0] * np.uint32(nj * nk) + lower[1] * np.uint32(nk) + lower[2]

    def fetch(i: int, j: int, k: int) -> Array:
        return gather_flat(flat, base + np.uint32((i * nj + j) * nk + k))

    return [[[fetch(i, j, k) for k in (0, 1)] for j in (0, 1)] for i in (0, 1)]


def gather_flat(flat: Num[Array, " n"], index: UInt32[Array, "*samples"]) -> Num[Array, "*samples"]:
    # A plain gather: indexing with [] also wraps negative indices, eight times per sample.
    numbers = lax.GatherDimensionNumbers(
        offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,)
    )
    return lax.gather(flat, index[..., None], numbers, (1,), mode="promise_in_bounds")


def interpolate(corners, x, y, z) -> Array:
    """Sum the corner values, each times the product of its weights along the three axes."""
    by_edge = [[z[0] * edge[0] + z[1] * edge[1] for edge in face] for face in corners]
    by_face = [y[0] * face[0] + y[1] * face[1] for face in by_edge]
    return x[0] * by_face[0] + x[1] * by_face[1]
