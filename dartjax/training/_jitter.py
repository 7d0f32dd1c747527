"""One view as another crop of it would show it: rolled, zoomed and moved, with its camera."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import PRNGKeyArray

from dartjax import transforms
from dartjax._types import Image, Matrix2
from dartjax.camera import Camera, pixel_centers


class Jitter(eqx.Module):
    """Standard deviations of what differs from crop to crop."""

    roll_rad: float = 0.15
    zoom: float = 0.05  # of its logarithm
    shift_px: float = 3.0  # per axis


def jittered(
    image: Image, mask: Image, camera: Camera, amount: Jitter, *, key: PRNGKeyArray
) -> tuple[Image, Image, Camera]:
    """Another crop of one view: image, mask and the camera they belong to.

    A roll about the beam is a rotation of the camera, so the perspective stays exact. Pixels
    that the crop did not show take the values of its border. Square pixels are assumed.
    """
    keys = jax.random.split(key, 3)
    angle = amount.roll_rad * jax.random.normal(keys[0])
    zoom = jnp.exp(amount.zoom * jax.random.normal(keys[1]))
    shift = amount.shift_px * jax.random.normal(keys[2], (2,))
    turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    middle = 0.5 * jnp.array(camera.image_size[::-1], float)
    # The middle of the crop stays in the middle but for the shift.
    offset = turn @ (camera.principal_point - middle)
    roll = transforms.SE3.from_rotation(transforms.SO3.from_z_radians(angle))
    seen_by = dataclasses.replace(
        camera,
        camera_from_world=roll @ camera.camera_from_world,
        focal_length=camera.focal_length * zoom,
        principal_point=middle + shift + zoom * offset,
    )
    shown, covered = (_sampled(each, camera, seen_by, turn) for each in (image, mask))
    return shown, covered, seen_by


def _sampled(image: Image, old: Camera, new: Camera, turn: Matrix2) -> Image:
    """The values of the old image where the pixels of the new camera look."""
    direction = (pixel_centers(new) - new.principal_point[None, None]) / new.focal_length[0]
    place = direction @ turn * old.focal_length[0] + old.principal_point[None, None]
    column, row = jnp.moveaxis(place - 0.5, -1, 0)
    return map_coordinates(image, [row, column], order=1, mode="nearest")
