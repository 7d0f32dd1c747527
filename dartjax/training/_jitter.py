"""Data augmentation by random crops of a view: rolled, zoomed and shifted, with the camera."""

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
    """Standard deviations of roll, zoom and shift of a random crop."""

    roll_rad: float = 0.15
    zoom: float = 0.05  # of its logarithm
    shift_px: float = 3.0  # per axis


def jittered(
    image: Image, mask: Image, camera: Camera, amount: Jitter, *, key: PRNGKeyArray
) -> tuple[Image, Image, Camera]:
    """Draw a random crop of one view: image, mask and their camera.

    A roll about the beam is a rotation of the camera, so the perspective stays exact. Pixels
    outside the original crop take the values of its border. Assumes square pixels.
    """
    keys = jax.random.split(key, 3)
    angle = amount.roll_rad * jax.random.normal(keys[0])
    zoom = jnp.exp(amount.zoom * jax.random.normal(keys[1]))
    shift = amount.shift_px * jax.random.normal(keys[2], (2,))
    turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    middle = 0.5 * jnp.array(camera.image_size[::-1], float)
    # Roll and zoom keep the middle of the crop in place; only the shift moves it.
    offset = turn @ (camera.principal_point - middle)
    roll = transforms.SE3.from_rotation(transforms.SO3.from_z_radians(angle))
    new_camera = dataclasses.replace(
        camera,
        camera_from_world=roll @ camera.camera_from_world,
        focal_length=camera.focal_length * zoom,
        principal_point=middle + shift + zoom * offset,
    )
    new_image, new_mask = (_sampled(pixels, camera, new_camera, turn) for pixels in (image, mask))
    return new_image, new_mask, new_camera


def _sampled(image: Image, old: Camera, new: Camera, turn: Matrix2) -> Image:
    """Sample the old image at the pixels of the new camera."""
    direction = (pixel_centers(new) - new.principal_point[None, None]) / new.focal_length[0]
    place = direction @ turn * old.focal_length[0] + old.principal_point[None, None]
    column, row = jnp.moveaxis(place - 0.5, -1, 0)
    return map_coordinates(image, [row, column], order=1, mode="nearest")
