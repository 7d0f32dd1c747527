"""Boxes in an image: overlap, encoding, non-maximum suppression, and pooling of features.

A box is (u0, v0, u1, v1) in the pixels of the image, left, top, right, bottom. Everything has
static shapes: jit and vmap over images.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

Boxes = Float[Array, "box 4"]
_LARGEST = 4.0  # of a log size: 55 times the proposal


def box_areas(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Compute the areas of boxes, px^2; an inverted box has area 0."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def box_overlaps(first: Float[Array, "n 4"], second: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Compute the intersection over union of all pairs of boxes; 0 for two empty boxes."""
    low = jnp.maximum(first[:, None, :2], second[None, :, :2])
    high = jnp.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = box_areas(jnp.concatenate([low, high], axis=-1))
    union = box_areas(first)[:, None] + box_areas(second)[None] - shared
    return jnp.where(union > 0.0, shared / jnp.where(union > 0.0, union, 1.0), 0.0)


def generalized_overlap(first: Boxes, second: Boxes) -> Float[Array, " box"]:
    """Compute the generalized IoU of corresponding boxes (Rezatofighi et al. 2019): IoU minus the
    empty share of the smallest box around both. From -1 to 1, with a slope for disjoint boxes."""
    low = jnp.maximum(first[:, :2], second[:, :2])
    high = jnp.minimum(first[:, 2:], second[:, 2:])
    shared = box_areas(jnp.concatenate([low, high], axis=-1))
    union = jnp.maximum(box_areas(first) + box_areas(second) - shared, 1e-6)
    around = jnp.concatenate(
        [jnp.minimum(first[:, :2], second[:, :2]), jnp.maximum(first[:, 2:], second[:, 2:])], -1
    )
    whole = jnp.maximum(box_areas(around), 1e-6)
    return shared / union - (whole - union) / whole


def encode_boxes(boxes: Boxes, proposals: Boxes) -> Float[Array, "box 4"]:
    """Encode boxes relative to proposals (R-CNN): shift of the centre over the proposal's sides,
    and log ratios of the sides."""
    center, sides = _center_and_sides(boxes)
    own, own_sides = _center_and_sides(proposals)
    return jnp.concatenate([(center - own) / own_sides, jnp.log(sides / own_sides)], axis=-1)


def decode_boxes(codes: Float[Array, "box 4"], proposals: Boxes) -> Boxes:
    """Decode boxes relative to proposals: the inverse of `encode_boxes`."""
    own, own_sides = _center_and_sides(proposals)
    center = own + codes[:, :2] * own_sides
    half = 0.5 * own_sides * jnp.exp(jnp.clip(codes[:, 2:], -_LARGEST, _LARGEST))
    return jnp.concatenate([center - half, center + half], axis=-1)


def _center_and_sides(boxes: Boxes) -> tuple[Float[Array, "box 2"], Float[Array, "box 2"]]:
    sides = jnp.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    return 0.5 * (boxes[:, :2] + boxes[:, 2:]), sides


def suppress_duplicates(
    boxes: Boxes, scores: Float[Array, " box"], valid: Bool[Array, " box"], overlap: float
) -> Bool[Array, " box"]:
    """Choose boxes by greedy non-maximum suppression: in the order of the scores, a valid box is
    kept unless its IoU with a kept one is above `overlap`."""
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf))
    near = box_overlaps(boxes[order], boxes[order]) > overlap

    def decide(i: Int[Array, ""], kept: Bool[Array, " box"]) -> Bool[Array, " box"]:
        earlier = kept & (jnp.arange(len(kept)) < i)
        return kept.at[i].set(kept[i] & ~jnp.any(near[i] & earlier))

    kept = lax.fori_loop(0, len(boxes), decide, valid[order])
    return jnp.zeros_like(valid).at[order].set(kept)


def roi_align(
    features: Float[Array, "h w c"], boxes: Boxes, size: int, stride: float | int, samples: int = 2
) -> Float[Array, "box size size c"]:
    """Pool the features inside boxes (RoIAlign, He et al. 2017) as two matrix products per box.

    Every box is divided into size x size cells; a cell is the mean of samples x samples bilinear
    samples. `stride` is the width of a feature in pixels of the image. Samples outside the map
    take the value at its border.
    """
    height, width, _ = features.shape
    along_u = _sample_weights(boxes[:, 0], boxes[:, 2], size, samples, width, stride)
    along_v = _sample_weights(boxes[:, 1], boxes[:, 3], size, samples, height, stride)
    rows = jnp.einsum("nph,hwc->npwc", along_v, features)
    return jnp.einsum("nqw,npwc->npqc", along_u, rows)


def _sample_weights(
    low: Float[Array, " box"],
    high: Float[Array, " box"],
    size: int,
    samples: int,
    length: int,
    stride: float | int,
) -> Float[Array, "box size length"]:
    """Compute the weights of a map's rows (or columns) in the cells of each box."""
    steps = (jnp.arange(size * samples) + 0.5) / (size * samples)
    at = low[:, None] + steps[None] * (high - low)[:, None]
    place = jnp.clip(at / stride - 0.5, 0.0, length - 1.0)
    weights = jnp.maximum(1.0 - jnp.abs(place[..., None] - jnp.arange(length)[None, None]), 0.0)
    return jnp.mean(weights.reshape(len(low), size, samples, length), axis=2)


def local_peaks(
    heat: Float[Array, "h w"], count: int
) -> tuple[Float[Array, " peak"], Int[Array, "peak 2"]]:
    """Find the `count` highest values that are the maximum of their 3 x 3 neighbourhood; values
    and (row, column), from high to low. Missing peaks have the value -inf."""
    highest = lax.reduce_window(heat, -jnp.inf, lax.max, (3, 3), (1, 1), "SAME")
    alone = jnp.where(heat >= highest, heat, -jnp.inf)
    values, flat = lax.top_k(alone.reshape(-1), count)
    return values, jnp.stack(jnp.divmod(flat, heat.shape[1]), axis=-1)
