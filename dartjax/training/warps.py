"""Warps of a radiograph, with its masks and landmarks.

A warp maps every new pixel to its source in the old image: old = A new + d(new), with an affine
map A (3 x 3, homogeneous) and a smooth displacement d. Pixel coordinates are (u, v): u right,
v down, the centre of the first pixel at (0.5, 0.5).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, PRNGKeyArray

from dartjax._types import Image, Matrix3, Pixels, Scalar

Amount = Scalar | float | int
Grid = Float[Array, "h w 2"]

ELASTIC_CELL_PX = 32  # distance of the control points of an elastic displacement
_ITERATIONS = 12


class Warp(NamedTuple):
    """Warp of an image: the source of every new pixel. `displacement` is in pixels (u, v)."""

    old_from_new: Matrix3
    displacement: Grid


def affine_about_center(
    shape: tuple[int, ...],
    *,
    shift_px: Float[Array, "2"],
    rotation: Amount,
    shear: Amount,
    scale: Amount,
) -> Matrix3:
    """Make new_from_old for an image of a shape: scale, shear (u += tan(shear) v) and rotate
    (radians, u toward v) about the image's centre, then shift by (u, v)."""
    center = jnp.array([shape[1], shape[0]]) / 2.0
    cosine, sine = jnp.cos(rotation), jnp.sin(rotation)
    turn = jnp.stack([cosine, -sine, sine, cosine]).reshape(2, 2)
    skew = jnp.eye(2).at[0, 1].set(jnp.tan(shear))
    linear = scale * turn @ skew
    return _homogeneous(linear, center + shift_px - linear @ center)


def crop_and_resize(shape: tuple[int, ...], *, share: Amount, place: Float[Array, "2"]) -> Matrix3:
    """Make new_from_old that crops a window of `share` of the image's sides and enlarges it to the
    full size. `place` in [0, 1] is its position between the left (upper) and right (lower)
    edge."""
    size = jnp.array([shape[1], shape[0]], float)
    corner = place * (1.0 - share) * size
    return _homogeneous(jnp.eye(2) / share, -corner / share)


def elastic_displacement(
    shape: tuple[int, ...], amplitude_px: Amount, *, key: PRNGKeyArray
) -> Grid:
    """Draw a smooth random displacement whose longest vector is `amplitude_px`: cubic interpolation
    between random vectors 32 pixels apart."""
    cells = tuple(max(2, n // ELASTIC_CELL_PX) + 1 for n in shape)
    field = jax.random.normal(key, (*cells, 2))
    field = jax.image.resize(field, (*shape, 2), "cubic")
    longest = jnp.sqrt(jnp.max(jnp.sum(field**2, axis=-1)))
    return field * (amplitude_px / longest)


def no_displacement(shape: tuple[int, ...]) -> Grid:
    """Make a displacement of 0."""
    return jnp.zeros((*shape, 2))


def warp_image(image: Image, warp: Warp) -> Image:
    """Warp an image by bilinear interpolation; sources outside take the value of the border."""
    return map_coordinates(image, _sources(warp), order=1, mode="nearest")


def warp_masks(masks: Float[Array, "mask h w"], warp: Warp) -> Float[Array, "mask h w"]:
    """Warp masks by bilinear interpolation (threshold them at 0.5); sources outside give 0."""
    sources = _sources(warp)
    return jax.vmap(lambda mask: map_coordinates(mask, sources, order=1, mode="constant"))(masks)


def warp_points(points: Pixels, warp: Warp) -> Pixels:
    """Map points of the old image to the new one; the result may lie outside the image.

    Solves old = A new + d(new) for new by fixed-point iteration, which converges because d changes
    by less than a pixel per pixel.
    """
    new_from_old = jnp.linalg.inv(warp.old_from_new)

    def step(new: Pixels, _: None) -> tuple[Pixels, None]:
        return _apply(new_from_old, points - _displacement_at(warp.displacement, new)), None

    return jax.lax.scan(step, _apply(new_from_old, points), length=_ITERATIONS)[0]


def _homogeneous(linear: Float[Array, "2 2"], shift: Float[Array, "2"]) -> Matrix3:
    return jnp.eye(3).at[:2, :2].set(linear).at[:2, 2].set(shift)


def _apply(matrix: Matrix3, points: Float[Array, "*batch 2"]) -> Float[Array, "*batch 2"]:
    shift = jnp.broadcast_to(matrix[:2, 2], points.shape)
    return points @ matrix[:2, :2].T + shift


def _sources(warp: Warp) -> list[Image]:
    """Compute the row and column indices of the sources of the new pixels."""
    height, width, _ = warp.displacement.shape
    u, v = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
    old = _apply(warp.old_from_new, jnp.stack([u, v], axis=-1)) + warp.displacement
    return [old[..., 1] - 0.5, old[..., 0] - 0.5]


def _displacement_at(displacement: Grid, points: Pixels) -> Pixels:
    where = [points[:, 1] - 0.5, points[:, 0] - 0.5]
    parts = [map_coordinates(displacement[..., i], where, order=1, mode="nearest") for i in (0, 1)]
    return jnp.stack(parts, axis=-1)
