"""Distortion of an image intensifier and its correction from a plate of fiducials.

The correction interpolates between control points (local) or uses one polynomial (global). "Real"
pixels belong to the recorded image, "ideal" pixels to a pinhole camera.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float, Int

from dartjax._types import Image, Pixels, Point, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.transforms import SO3

CENTRE_NODES = 5  # nodes along each side of the plate's middle, where distortion is small
_FIXED_POINT_STEPS = 8
_NEIGHBOURS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))


class Intensifier(eqx.Module):
    """Distortion model of an image intensifier, in units of the field's radius at radius r = 1.

    `pincushion` moves points outward; `sigmoid` rotates them (rad). The earth's magnetic field
    `earth_field` (world axes) rotates them by its component along the beam and shifts them by its
    component across the beam. `bump` moves points near `bump_center` outward, over a width of
    `bump_width`: a local defect of the tube that a polynomial of low order cannot follow. A flat
    panel has all parameters 0.
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
    """Build the intensifier of a 9 inch C-arm: a field of 576 px, a few per cent of distortion."""
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
    """Build a detector without distortion."""
    return intensifier(center, pincushion=0.0, sigmoid=0.0, earth_field=(0.0, 0.0, 0.0))


def distort_points(tube: Intensifier, R_world_camera: SO3, ideal: Pixels) -> Pixels:
    """Map pixels (n, 2) of an ideal pinhole camera to pixels of the recorded image.

    The magnetic part depends on the orientation of the C-arm, so the distortion differs between
    poses.
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
    """Invert `distort_points` by fixed-point iteration (exact to 1e-3 px for 5 % distortion)."""

    def step(ideal: Pixels, _):
        return ideal - (distort_points(tube, R_world_camera, ideal) - real), None

    return jax.lax.scan(step, real, length=_FIXED_POINT_STEPS)[0]


class LocalDistortion(eqx.Module):
    """Local distortion: displacements of control points on a lattice. Ideal node (i, j) = origin +
    (j, i) @ basis, real node = ideal node + displacement[i, j]."""

    origin: Float[Array, "2"]
    basis: Float[Array, "2 2"]  # rows: one column further, one row further
    displacement: Float[Array, "rows columns 2"]
    usable: Bool[Array, "rows columns"]


def fit_local(
    real: Float[Array, "rows columns 2"], valid: Bool[Array, "rows columns"]
) -> tuple[LocalDistortion, Status]:
    """Fit the local distortion to the nodes of a plate detected in an image.

    The ideal lattice is extrapolated from the 5 x 5 nodes in the middle, where the distortion is
    small. A missing node is predicted from its neighbours if at least three predictions exist.
    Status TOO_FEW_FIDUCIALS if fewer than 15 of the middle nodes were detected,
    DEGENERATE_GEOMETRY if a cell is folded or a detected node is not finite.
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
    extended, _ = _fill(displacement, usable, least=1)  # for cubic interpolation in border cells
    status = first_status(
        (StatusCode.TOO_FEW_FIDUCIALS, jnp.sum(middle) < 15),
        (StatusCode.DEGENERATE_GEOMETRY, jnp.any(_folded(ideal + displacement, usable))),
    )
    return LocalDistortion(affine[0], affine[1:], extended, usable), status


def _fill(
    values: Float[Array, "rows columns 2"], known: Bool[Array, "rows columns"], *, least: int
) -> tuple[Float[Array, "rows columns 2"], Bool[Array, "rows columns"]]:
    """Fill unknown nodes by linear inter- or extrapolation of two known nodes in line with them."""
    padded = jnp.pad(values, ((2, 2), (2, 2), (0, 0)))
    is_known = jnp.pad(known, 2)
    rows, columns = known.shape

    def at(array, i: int, j: int):
        return array[2 + i : 2 + i + rows, 2 + j : 2 + j + columns]

    total, count = jnp.zeros_like(values), jnp.zeros((rows, columns))
    for i, j in _NEIGHBOURS:
        pairs = ((2 * i, 2 * j, 2.0, -1.0), (-i, -j, 0.5, 0.5))
        for other_i, other_j, weight, other_weight in pairs:
            both = at(is_known, i, j) & at(is_known, other_i, other_j)
            predicted = weight * at(padded, i, j) + other_weight * at(padded, other_i, other_j)
            total = total + jnp.where(both[..., None], predicted, 0.0)
            count = count + both
    fill = ~known & (count >= least)
    predicted = total / jnp.maximum(count, 1.0)[..., None]
    return jnp.where(fill[..., None], predicted, values), known | fill


def _folded(
    nodes: Float[Array, "rows columns 2"], usable: Bool[Array, "rows columns"]
) -> Bool[Array, "r c"]:
    right, down = nodes[:-1, 1:] - nodes[:-1, :-1], nodes[1:, :-1] - nodes[:-1, :-1]
    whole = usable[:-1, 1:] & usable[:-1, :-1] & usable[1:, :-1]
    return whole & ~(right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0] > 0.0)


def real_of_ideal(lattice: LocalDistortion, ideal: Pixels) -> Pixels:
    """Map ideal to real pixels by Catmull-Rom interpolation of control points; NaN outside."""
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
    """Map real to ideal pixels, the inverse of `real_of_ideal`; NaN outside the plate."""

    def step(ideal: Pixels, _):
        distorted = real_of_ideal(lattice, ideal)
        # A point that leaves the plate during the iteration keeps its value.
        change = jnp.where(jnp.isfinite(distorted), distorted - real, 0.0)
        return ideal - change, None

    ideal = jax.lax.scan(step, real, length=_FIXED_POINT_STEPS)[0]
    return jnp.where(jnp.isfinite(real_of_ideal(lattice, ideal)), ideal, jnp.nan)


def undistort_image(lattice: LocalDistortion, image: Image) -> Image:
    """Resample a recorded image to that of a pinhole camera, bilinearly; 0 outside the plate."""
    height, width = image.shape
    u, v = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
    real = real_of_ideal(lattice, jnp.stack([u.reshape(-1), v.reshape(-1)], axis=1))
    known = jnp.isfinite(real[:, 0])
    real = jnp.where(known[:, None], real, 0.0)
    values = map_coordinates(image, [real[:, 1] - 0.5, real[:, 0] - 0.5], order=1, mode="nearest")
    return jnp.where(known, values, 0.0).reshape(height, width)


class GlobalDistortion(eqx.Module):
    """Global distortion: a polynomial from real to ideal pixels, the baseline of the local one."""

    center: Float[Array, "2"]
    scale: Scalar  # px
    coefficients: Float[Array, "term 2"]
    order: int = eqx.field(static=True)


def fit_global(
    real: Pixels, ideal: Pixels, valid: Bool[Array, " n"], order: int
) -> GlobalDistortion:
    """Fit a polynomial of total `order` (5: 21 terms) to control points (n, 2) by least squares.

    Points that are not valid have no influence, also if they are NaN.
    """
    real, ideal = (jnp.where(valid[:, None], each, 0.0) for each in (real, ideal))
    weight = valid[:, None].astype(real.dtype)
    center = jnp.sum(weight * real, axis=0) / jnp.maximum(jnp.sum(weight), 1.0)
    scale = jnp.max(weight * jnp.abs(real - center[None]))
    terms = weight * _terms((real - center[None]) / scale, order)
    coefficients = jnp.linalg.lstsq(terms, weight * (ideal - center[None]) / scale)[0]
    return GlobalDistortion(center, scale, coefficients, order)


def ideal_of_real_global(fit: GlobalDistortion, real: Pixels) -> Pixels:
    """Map real to ideal pixels by the polynomial, also outside the plate."""
    terms = _terms((real - fit.center[None]) / fit.scale, fit.order)
    return terms @ fit.coefficients * fit.scale + fit.center[None]


def _terms(p: Pixels, order: int) -> Float[Array, "n term"]:
    x, y = p[:, 0], p[:, 1]
    powers = [(a, b) for a in range(order + 1) for b in range(order + 1 - a)]
    return jnp.stack([x**a * y**b for a, b in powers], axis=1)
