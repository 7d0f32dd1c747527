"""Domain randomisation: make clean radiographs look like those of other machines.

Operations and amounts are those of SyntheX (see `image_ops`). Properties of the acquisition
(spectrum, photon count, distances, collimation, tools) are randomised in the simulation, not here.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dartjax._types import Image, Matrix3, Pixels, Scalar
from dartjax.training import image_ops as ops
from dartjax.training import warps

Range = tuple[float | Scalar, float | Scalar]

# Every operation has its row of random numbers, in the order of application.
_STEPS = ("blur", "drop", "convolve", "pool", "multiply")
_STEPS += ("gamma", "contrast", "invert", "boxes", "salt", "noise")
_NUM_STRONG = 5
_POOLINGS: tuple[ops.Pooling, ...] = ("average", "max", "min", "median")
_POOL_SIZES = (2, 4)

Numbers = Float[Array, " n"]  # uniform in [0, 1)
Operation = Callable[[Image, Numbers, PRNGKeyArray], Image]


class RandomisationConfig(eqx.Module):
    """Probability of every operation, and the ranges of its amounts (uniform distributions).

    The default probabilities are 0; the default ranges are those of SyntheX. `RANDOMISATIONS` holds
    the presets. Shares and sigmas refer to the image's range of values. With probability `strong`,
    one or two of five strong operations are selected, each of which is then applied with
    probability `strong_member`.
    """

    invert: float = 0.0
    noise: float = 0.0
    gamma: float = 0.0
    boxes: float = 0.0
    salt: float = 0.0
    contrast: float = 0.0
    strong: float = 0.0
    strong_member: float = 0.5
    affine: float = 0.0
    crop: float = 0.0
    elastic: float = 0.0

    noise_sigma: Range = (0.005, 0.01)
    gamma_exponent: Range = (0.7, 1.3)
    contrast_factor: Range = (0.5, 2.0)
    contrast_exponent: Range = (0.5, 2.0)
    contrast_log_gain: Range = (0.6, 1.4)
    contrast_sigmoid_gain: Range = (3.0, 10.0)
    contrast_sigmoid_cutoff: Range = (0.4, 0.6)
    salt_share: float = 0.1
    salt_coarse_share: float = 0.05
    salt_cells: Range = (0.01, 0.1)
    blur_sigma_px: Range = (0.0, 3.0)
    blur_window_px: Range = (4.0, 6.0)
    dropout_share: Range = (0.1, 0.15)
    dropout_cells: Range = (0.1, 0.15)
    convolve_alpha: Range = (0.5, 1.0)
    sharpen_lightness: Range = (1.0, 1.5)
    emboss_strength: Range = (1.0, 2.0)
    multiply_factor: Range = (0.5, 1.5)
    shift_px: float = 20.0
    rotation_deg: float = 5.0
    shear_deg: float = 2.0
    scale: Range = (0.9, 1.1)
    crop_share: Range = (0.8, 1.0)
    elastic_px: Range = (0.5, 3.5)


RANDOMISATIONS: dict[str, RandomisationConfig] = {
    "none": RandomisationConfig(),
    # Differences between well-maintained machines: tone, noise, and a few millimetres.
    "mild": RandomisationConfig(
        noise=0.5,
        gamma=0.5,
        contrast=0.25,
        affine=0.5,
        contrast_factor=(0.8, 1.25),
        contrast_exponent=(0.8, 1.25),
        contrast_log_gain=(0.9, 1.1),
        contrast_sigmoid_gain=(3.0, 5.0),
        shift_px=8.0,
        rotation_deg=3.0,
        shear_deg=0.0,
        scale=(0.95, 1.05),
    ),
    # Machines of every kind and setting, bone bright: for detectors, which must not rely on
    # absolute grey values.
    "detector": RandomisationConfig(
        noise=0.5,
        gamma=0.5,
        boxes=0.05,
        contrast=0.4,
        strong=0.15,
        noise_sigma=(0.003, 0.015),
        contrast_factor=(0.7, 1.4),
        contrast_exponent=(0.6, 1.6),
        dropout_share=(0.02, 0.08),
        salt_share=0.03,
    ),
    "synthex": RandomisationConfig(
        invert=0.5,
        noise=0.5,
        gamma=0.5,
        boxes=0.25,
        salt=0.5,
        contrast=0.5,
        strong=0.5,
        affine=0.5,
        crop=0.5,
        # In SyntheX one of six strong operations, of which 1.5 on average are tried at one half.
        elastic=0.125,
    ),
}


class Randomised(NamedTuple):
    """Randomised image with its masks and landmarks.

    `new_from_old` is the affine map of pixels (u, v, 1); masks and landmarks are transformed by it
    and by the elastic displacement. Landmarks may lie outside the image.
    """

    image: Image
    masks: Float[Array, "mask h w"]
    landmarks: Pixels
    new_from_old: Matrix3


def randomise(image: Image, config: RandomisationConfig, *, key: PRNGKeyArray) -> Image:
    """Randomise the gray values of one image; pixels do not move, so camera, masks and landmarks
    stay valid.

    The image may be a line integral or a display image: operations act on its values scaled to
    [0, 1], and the result is scaled back to the original range. If no operation is drawn, the image
    is returned unchanged, bit for bit. For batches on a CPU use `jax.lax.map`, which runs only the
    operations drawn; `vmap` runs every operation for every image.
    """
    gate_key, number_key, *keys = jax.random.split(key, 2 + len(_STEPS))
    gates = _gates(config, jax.random.uniform(gate_key, (2 * len(_STEPS),)))
    numbers = jax.random.uniform(number_key, (len(_STEPS), 4))
    low, high = jnp.min(image), jnp.max(image)
    span = jnp.where(high > low, high - low, 1.0)
    changed = (image - low) / span
    for step, operations in enumerate(_operations(config)):
        apply = functools.partial(_one_of, operations, numbers=numbers[step], key=keys[step])
        changed = jax.lax.cond(gates[step], apply, lambda x: x, changed)
    return jnp.where(jnp.any(gates), low + span * changed, image)


def randomise_with_labels(
    image: Image,
    masks: Float[Array, "mask h w"],
    landmarks: Pixels,
    config: RandomisationConfig,
    *,
    key: PRNGKeyArray,
) -> Randomised:
    """Randomise gray values AND pixel positions of one image, with its masks and landmarks.

    An affine map about the image's centre, a cropped and enlarged window, and an elastic
    displacement are applied in one bilinear resampling. Masks are returned as soft values;
    threshold them at 0.5. The camera of the image is no longer valid, unless new_from_old is
    applied to its intrinsics.
    """
    warp_key, value_key = jax.random.split(key)
    warp, new_from_old, is_moved = random_warp(image.shape, config, key=warp_key)
    moved = jax.lax.cond(
        is_moved,
        lambda: (
            warps.warp_image(image, warp),
            warps.warp_masks(masks, warp),
            warps.warp_points(landmarks, warp),
        ),
        lambda: (image, masks, landmarks),
    )
    return Randomised(randomise(moved[0], config, key=value_key), moved[1], moved[2], new_from_old)


def random_warp(
    shape: tuple[int, ...], config: RandomisationConfig, *, key: PRNGKeyArray
) -> tuple[warps.Warp, Matrix3, Bool[Array, ""]]:
    """Draw the warp of `randomise_with_labels`, new_from_old of its affine part, and whether the
    warp is not the identity."""
    number_key, elastic_key = jax.random.split(key)
    numbers = jax.random.uniform(number_key, (12,))
    gates = numbers[:3] < jnp.stack([config.affine, config.crop, config.elastic])
    signed = 2.0 * numbers[3:7] - 1.0
    affine = warps.affine_about_center(
        shape,
        shift_px=signed[:2] * config.shift_px,
        rotation=jnp.deg2rad(signed[2] * config.rotation_deg),
        shear=jnp.deg2rad(signed[3] * config.shear_deg),
        scale=_within(config.scale, numbers[7]),
    )
    share = _within(config.crop_share, numbers[8])
    crop = warps.crop_and_resize(shape, share=share, place=numbers[9:11])
    new_from_old = jnp.where(gates[1], crop, jnp.eye(3)) @ jnp.where(gates[0], affine, jnp.eye(3))
    amplitude = _within(config.elastic_px, numbers[11])
    displacement = jax.lax.cond(
        gates[2],
        lambda: warps.elastic_displacement(shape, amplitude, key=elastic_key),
        lambda: warps.no_displacement(shape),
    )
    return warps.Warp(jnp.linalg.inv(new_from_old), displacement), new_from_old, jnp.any(gates)


def _gates(config: RandomisationConfig, numbers: Numbers) -> Bool[Array, " step"]:
    """Return which steps are applied: one or two of the strong ones, the others independently."""
    own, shared = numbers[: len(_STEPS)], numbers[len(_STEPS) :]
    rank = jnp.argsort(jnp.argsort(shared[:_NUM_STRONG]))
    count = 1 + (shared[_NUM_STRONG] < 0.5)
    picked = (rank < count) & (shared[_NUM_STRONG + 1] < config.strong)
    chances = [config.strong_member] * _NUM_STRONG
    chances += [config.gamma, config.contrast, config.invert]
    chances += [config.boxes, config.salt, config.noise]
    always = jnp.ones(len(_STEPS) - _NUM_STRONG, bool)
    return (own < jnp.stack(chances)) & jnp.concatenate([picked, always])


def _one_of(
    operations: Sequence[Operation], image: Image, *, numbers: Numbers, key: PRNGKeyArray
) -> Image:
    """Apply one variant of a step, chosen uniformly by the last number."""
    kind = jnp.floor(numbers[-1] * len(operations)).astype(int)
    return jax.lax.switch(kind, operations, image, numbers[:-1], key)


def _within(interval: Range, number: Scalar) -> Scalar:
    low, high = interval
    return low + (high - low) * number


def _operations(config: RandomisationConfig) -> list[list[Operation]]:
    """Make the variants of every step, f(image, numbers, key), in the order of `_STEPS`."""
    c = config

    def pool(size: int, kind: ops.Pooling) -> Operation:
        return lambda x, n, k: ops.pool(x, size, kind)

    def average_blur(x: Image, n: Numbers, k: PRNGKeyArray) -> Image:
        low, high = c.blur_window_px
        return ops.average_blur(x, jnp.floor(_within((low, high + 1.0), n[0])))

    def drop_cells(x: Image, n: Numbers, k: PRNGKeyArray) -> Image:
        share, cells = _within(c.dropout_share, n[0]), _within(c.dropout_cells, n[1])
        return ops.coarse_dropout(x, share, cells, key=k)

    def convolve(operation: Callable[..., Image], second: Range) -> Operation:
        return lambda x, n, k: operation(x, _within(c.convolve_alpha, n[0]), _within(second, n[1]))

    def sigmoid(x: Image, n: Numbers, k: PRNGKeyArray) -> Image:
        gain, cutoff = c.contrast_sigmoid_gain, c.contrast_sigmoid_cutoff
        return ops.sigmoid_contrast(x, _within(gain, n[0]), _within(cutoff, n[1]))

    def boxes(x: Image, n: Numbers, k: PRNGKeyArray) -> Image:
        return ops.noise_boxes(x, 1.0 + jnp.floor(ops.MAX_BOXES * n[0]), key=k)

    def salt_cells(x: Image, n: Numbers, k: PRNGKeyArray) -> Image:
        cells = _within(c.salt_cells, n[0])
        return ops.coarse_salt_and_pepper(x, c.salt_coarse_share, cells, key=k)

    return [
        [lambda x, n, k: ops.gaussian_blur(x, _within(c.blur_sigma_px, n[0])), average_blur],
        [lambda x, n, k: ops.dropout(x, _within(c.dropout_share, n[0]), key=k), drop_cells],
        [convolve(ops.sharpen, c.sharpen_lightness), convolve(ops.emboss, c.emboss_strength)],
        [pool(size, kind) for size in _POOL_SIZES for kind in _POOLINGS],
        [
            lambda x, n, k: ops.multiply(x, _within(c.multiply_factor, n[0])),
            lambda x, n, k: ops.multiply_elementwise(x, *c.multiply_factor, key=k),
        ],
        [lambda x, n, k: ops.gamma_contrast(x, _within(c.gamma_exponent, n[0]))],
        [
            lambda x, n, k: ops.linear_contrast(x, _within(c.contrast_factor, n[0])),
            lambda x, n, k: ops.gamma_contrast(x, _within(c.contrast_exponent, n[0])),
            lambda x, n, k: ops.log_contrast(x, _within(c.contrast_log_gain, n[0])),
            sigmoid,
        ],
        [lambda x, n, k: ops.invert(x)],
        [boxes],
        [
            lambda x, n, k: ops.impulse_noise(x, c.salt_share, key=k),
            lambda x, n, k: ops.salt_and_pepper(x, c.salt_share, key=k),
            salt_cells,
        ],
        [lambda x, n, k: ops.gaussian_noise(x, _within(c.noise_sigma, n[0]), key=k)],
    ]
