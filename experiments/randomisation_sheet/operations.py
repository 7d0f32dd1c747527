"""Apply the operations of domain randomisation, each at the middle of its range."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax.training import image_ops as ops
from dartjax.training import warps


def operations(x: Float[Array, "h w"], key: Array) -> list[tuple[str, Float[Array, "h w"]]]:
    """Apply every operation to an image with values 0 to 1; return titles and results."""
    shape = x.shape
    still = warps.no_displacement(shape)
    turn = warps.affine_about_center(
        shape, shift_px=jnp.array([20.0, -10.0]), rotation=0.087, shear=0.035, scale=0.95
    )
    crop = warps.crop_and_resize(shape, share=0.8, place=jnp.array([0.5, 0.5]))
    bend = warps.elastic_displacement(shape, 3.5, key=key)
    results = {
        "original": x,
        "invert": ops.invert(x),
        "Gaussian noise .01": ops.gaussian_noise(x, 0.01, key=key),
        "gamma 0.7": ops.gamma_contrast(x, 0.7),
        "noise boxes": ops.noise_boxes(x, 5.0, key=key),
        "Gaussian blur 3 px": ops.gaussian_blur(x, 3.0),
        "average blur 6 px": ops.average_blur(x, 6.0),
        "dropout 12 %": ops.dropout(x, 0.12, key=key),
        "coarse dropout 12 %": ops.coarse_dropout(x, 0.12, 0.12, key=key),
        "sharpen": ops.sharpen(x, 0.75, 1.25),
        "emboss": ops.emboss(x, 0.75, 1.5),
        "average pool 4": ops.pool(x, 4, "average"),
        "max pool 4": ops.pool(x, 4, "max"),
        "min pool 4": ops.pool(x, 4, "min"),
        "median pool 4": ops.pool(x, 4, "median"),
        "multiply 0.5": ops.multiply(x, 0.5),
        "multiply pixels .5-1.5": ops.multiply_elementwise(x, 0.5, 1.5, key=key),
        "impulse noise 10 %": ops.impulse_noise(x, 0.1, key=key),
        "salt and pepper 10 %": ops.salt_and_pepper(x, 0.1, key=key),
        "coarse salt, pepper 5 %": ops.coarse_salt_and_pepper(x, 0.05, 0.05, key=key),
        "linear contrast 2": ops.linear_contrast(x, 2.0),
        "gamma contrast 2": ops.gamma_contrast(x, 2.0),
        "log contrast 1.4": ops.log_contrast(x, 1.4),
        "sigmoid contrast 10": ops.sigmoid_contrast(x, 10.0, 0.5),
        "affine": warps.warp_image(x, warps.Warp(jnp.linalg.inv(turn), still)),
        "crop": warps.warp_image(x, warps.Warp(jnp.linalg.inv(crop), still)),
        "elastic 3.5 px": warps.warp_image(x, warps.Warp(jnp.eye(3), bend)),
        "elastic x 5": warps.warp_image(x, warps.Warp(jnp.eye(3), 5.0 * bend)),
    }
    return list(results.items())
