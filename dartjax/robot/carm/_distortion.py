"""Distortion of an image intensifier: what it does to an image, and its correction from a plate
of fiducials, by neighbouring control points or by one polynomial.

"Real" pixels are those of the recorded image, "ideal" ones those of a pinhole.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float, Int

from dartjax._types import Image, Pixels, Point, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.transforms import SO3

CENTRE_NODES = 5  # the plate's middle, where an intensifier hardly distorts
_FIXED_POINT_STEPS = 8
_NEIGHBOURS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))


class Intensifier(eqx.Module):
    """How an image intensifier moves pixels. In units of the field's radius, at radius r = 1:

    `pincushion` moves points outward, `sigmoid` turns them (rad), the earth's magnetic field
    `earth_field` (world axes) turns them by its component along the beam and shifts them by that
    across it. `bump` moves points near `bump_center` outward, over a width of `bump_width`:
    a fault of the tube that no low polynomial follows. All zero is a flat panel.
    """

    center: Float[Array, "2"]  # px
    radius: Scalar  # px, of the field
    pincushion: Scalar
    sigmoid: Scalar
    earth_field: Point
    bump: Scalar
    bump_center: Float[Array, "2"]
    bump_width: Scalar


def intensifier(
    center: tuple[float, float] = (384.0, 288.0),
    radius: float = 288.0,
    *,
    pincushion: float = 0.03,
    sigmoid: float = 0.01,
    earth_field: tuple[float, float, float] = (0.0, 0.006, -0.008),
    bump: float = 0.0,
    bump_center: tuple[float, float] = (0.4, 0.3),
    bump_width: float = 0.13,
) -> Intensifier:
    """An intensifier of a 9 inch C-arm whose field of 576 px distorts by a few per cent."""
    return Intensifier(
        center=jnp.asarray(center, float),
        radius=jnp.asarray(radius, float),
        pincushion=jnp.asarray(pincushion, float),
        sigmoid=jnp.asarray(sigmoid, float),
        earth_field=jnp.asarray(earth_field, float),
        bump=jnp.asarray(bump, float),
        bump_center=jnp.asarray(bump_center, float),
        bump_width=jnp.asarray(bump_width, float),
    )


def flat_panel(center: tuple[float, float] = (384.0, 288.0)) -> Intensifier:
    """A detector that distorts nothing."""
    return intensifier(center, pincushion=0.0, sigmoid=0.0, earth_field=(0.0, 0.0, 0.0))


def distort_points(tube: Intensifier, R_world_camera: SO3, ideal: Pixels) -> Pixels:
    """Where pixels (n, 2) of an ideal pinhole come to lie in the recorded image.

    The magnetic part depends on how the C-arm stands, so the distortion is another one in every
    pose.
    """
    along = R_world_camera.inverse().apply(tube.earth_field)
    p = (ideal - tube.center[None]) / tube.radius
    square = jnp.sum(p**2, axis=1, keepdims=True)
    turned = jnp.stack([-p[:, 1], p[:, 0]], axis=1)
    across = jnp.array([-along[1], along[0]])[None]
    offset = p - tube.bump_center[None]
    near = jnp.exp(-0.5 * jnp.sum(offset**2, axis=1, keepdims=True) / tube.bump_width**2)
    moved = (
        p
        + tube.pincushion * square * p
        + (tube.sigmoid + along[2]) * square * turned
        + square * across
        + tube.bump * near * offset
    )
    return moved * tube.radius + tube.center[None]


def undistort_points(tube: Intensifier, R_world_camera: SO3, real: Pixels) -> Pixels:
    """Inverse of `distort_points`, by fixed-point iteration (exact to 1e-3 px for 5 %)."""

    def step(ideal: Pixels, _):
        return ideal - (distort_points(tube, R_world_camera, ideal) - real), None

    return jax.lax.scan(step, real, length=_FIXED_POINT_STEPS)[0]


class LocalDistortion(eqx.Module):
    """Displacement of control points on a lattice: ideal node (i, j) = origin + (j, i) @ basis,
    real node = ideal + displacement[i, j]."""

    origin: Float[Array, "2"]
    basis: Float[Array, "2 2"]  # rows: one column further, one row further
    displacement: Float[Array, "rows columns 2"]
    usable: Bool[Array, "rows columns"]


def fit_local(
    real: Float[Array, "rows columns 2"], valid: Bool[Array, "rows columns"]
) -> tuple[LocalDistortion, Status]:
    """The local correction from the nodes of a plate as they were found in an image.

    The ideal lattice is extrapolated from the 5 x 5 nodes in the middle, where the tube hardly
    distorts. A missing node is predicted from its neighbours if at least three know it.
    TOO_FEW_FIDUCIALS if fewer than 15 of the middle nodes were found, DEGENERATE_GEOMETRY if a
    cell is folded.
    """
    rows, columns, _ = real.shape
    i, j = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
    half = CENTRE_NODES // 2
    middle = (jnp.abs(i - rows // 2) <= half) & (jnp.abs(j - columns // 2) <= half) & valid
    design = jnp.stack([jnp.ones_like(i), j, i], axis=-1).reshape(-1, 3).astype(real.dtype)
    weight = middle.reshape(-1, 1).astype(real.dtype)
    known = jnp.where(valid[..., None], real, 0.0)
    normal = design.T @ (weight * design) + 1e-9 * jnp.eye(3)
    affine = jnp.linalg.solve(normal, design.T @ (weight * known.reshape(-1, 2)))
    ideal = (design @ affine).reshape(rows, columns, 2)
    displacement = jnp.where(valid[..., None], known - ideal, 0.0)
    displacement, usable = _fill(displacement, valid, least=3)
    ringed, _ = _fill(displacement, usable, least=1)  # for the cubic beyond the last cell
    status = first_status(
        (StatusCode.TOO_FEW_FIDUCIALS, jnp.sum(middle) < 15),
        (StatusCode.DEGENERATE_GEOMETRY, jnp.any(_folded(ideal + displacement, usable))),
    )
    return LocalDistortion(affine[0], affine[1:], ringed, usable), status


def _fill(
    values: Float[Array, "rows columns 2"], known: Bool[Array, "rows columns"], *, least: int
) -> tuple[Float[Array, "rows columns 2"], Bool[Array, "rows columns"]]:
    """Unknown nodes by linear continuation of two nodes in a row, on one side or both."""
    padded = jnp.pad(values, ((2, 2), (2, 2), (0, 0)))
    is_known = jnp.pad(known, 2)
    rows, columns = known.shape

    def at(array, i: int, j: int):
        return array[2 + i : 2 + i + rows, 2 + j : 2 + j + columns]

    total, count = jnp.zeros_like(values), jnp.zeros((rows, columns))
    for i, j in _NEIGHBOURS:
        pairs = ((2 * i, 2 * j, 2.0, -1.0), (-i, -j, 0.5, 0.5))
        for other_i, other_j, own, other in pairs:
            both = at(is_known, i, j) & at(is_known, other_i, other_j)
            guess = own * at(padded, i, j) + other * at(padded, other_i, other_j)
            total = total + jnp.where(both[..., None], guess, 0.0)
            count = count + both
    fill = ~known & (count >= least)
    guess = total / jnp.maximum(count, 1.0)[..., None]
    return jnp.where(fill[..., None], guess, values), known | fill


def _folded(
    nodes: Float[Array, "rows columns 2"], usable: Bool[Array, "rows columns"]
) -> Bool[Array, "r c"]:
    right, down = nodes[:-1, 1:] - nodes[:-1, :-1], nodes[1:, :-1] - nodes[:-1, :-1]
    whole = usable[:-1, 1:] & usable[:-1, :-1] & usable[1:, :-1]
    return whole & (right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0] <= 0.0)


def real_of_ideal(lattice: LocalDistortion, ideal: Pixels) -> Pixels:
    """Ideal to real pixels by the control points around each (Catmull-Rom); NaN outside."""
    index = jnp.linalg.solve(lattice.basis.T, (ideal - lattice.origin[None]).T)  # (column, row)
    rows, columns, _ = lattice.displacement.shape
    j = jnp.clip(jnp.floor(index[0]).astype(int), 0, columns - 2)
    i = jnp.clip(jnp.floor(index[1]).astype(int), 0, rows - 2)
    inside = _inside(lattice, i, j, index)
    weight_u, weight_v = _catmull_rom(index[0] - j), _catmull_rom(index[1] - i)
    padded = jnp.pad(lattice.displacement, ((1, 1), (1, 1), (0, 0)), mode="edge")
    moved = ideal
    for a in range(4):
        for b in range(4):
            weight = weight_v[a] * weight_u[b]
            moved = moved + weight[:, None] * padded[i + a, j + b]
    return jnp.where(inside[:, None], moved, jnp.nan)


def _inside(
    lattice: LocalDistortion, i: Int[Array, " n"], j: Int[Array, " n"], index: Float[Array, "2 n"]
) -> Bool[Array, " n"]:
    corners = [lattice.usable[i + a, j + b] for a in (0, 1) for b in (0, 1)]
    rows, columns = lattice.usable.shape
    in_range = (index[0] >= 0) & (index[0] <= columns - 1) & (index[1] >= 0)
    return in_range & (index[1] <= rows - 1) & jnp.all(jnp.stack(corners), axis=0)


def _catmull_rom(t: Float[Array, " n"]) -> list[Float[Array, " n"]]:
    return [
        0.5 * (-t + 2.0 * t**2 - t**3),
        0.5 * (2.0 - 5.0 * t**2 + 3.0 * t**3),
        0.5 * (t + 4.0 * t**2 - 3.0 * t**3),
        0.5 * (t**3 - t**2),
    ]


def ideal_of_real(lattice: LocalDistortion, real: Pixels) -> Pixels:
    """Real to ideal pixels, the inverse of `real_of_ideal`; NaN outside the plate."""

    def step(ideal: Pixels, _):
        ahead = real_of_ideal(lattice, ideal)
        # A point that strays outside on its way stays where it is.
        change = jnp.where(jnp.isfinite(ahead), ahead - real, 0.0)
        return ideal - change, None

    ideal = jax.lax.scan(step, real, length=_FIXED_POINT_STEPS)[0]
    return jnp.where(jnp.isfinite(real_of_ideal(lattice, ideal)), ideal, jnp.nan)


def undistort_image(lattice: LocalDistortion, image: Image) -> Image:
    """The image a pinhole would have taken: every ideal pixel looked up in the real image
    (bilinear); 0 beyond the plate."""
    height, width = image.shape
    u, v = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
    real = real_of_ideal(lattice, jnp.stack([u.reshape(-1), v.reshape(-1)], axis=1))
    known = jnp.isfinite(real[:, 0])
    real = jnp.where(known[:, None], real, 0.0)
    values = map_coordinates(image, [real[:, 1] - 0.5, real[:, 0] - 0.5], order=1, mode="nearest")
    return jnp.where(known, values, 0.0).reshape(height, width)


class GlobalDistortion(eqx.Module):
    """A polynomial in both pixel coordinates, real to ideal: the comparison to the local one."""

    center: Float[Array, "2"]
    scale: Scalar  # px
    coefficients: Float[Array, "term 2"]
    order: int = eqx.field(static=True)


def fit_global(
    real: Pixels, ideal: Pixels, valid: Bool[Array, " n"], order: int
) -> GlobalDistortion:
    """Least-squares polynomial of total `order` (5: 21 terms) from control points (n, 2)."""
    weight = valid[:, None].astype(real.dtype)
    center = jnp.sum(weight * real, axis=0) / jnp.maximum(jnp.sum(weight), 1.0)
    scale = jnp.max(weight * jnp.abs(real - center[None]))
    terms = weight * _terms((real - center[None]) / scale, order)
    coefficients = jnp.linalg.lstsq(terms, weight * (ideal - center[None]) / scale)[0]
    return GlobalDistortion(center, scale, coefficients, order)


def ideal_of_real_global(fit: GlobalDistortion, real: Pixels) -> Pixels:
    """Real to ideal pixels by the polynomial, which also continues beyond the plate."""
    terms = _terms((real - fit.center[None]) / fit.scale, fit.order)
    return terms @ fit.coefficients * fit.scale + fit.center[None]


def _terms(p: Pixels, order: int) -> Float[Array, "n term"]:
    x, y = p[:, 0], p[:, 1]
    powers = [(a, b) for a in range(order + 1) for b in range(order + 1 - a)]
    return jnp.stack([x**a * y**b for a, b in powers], axis=1)
