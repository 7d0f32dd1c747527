"""Losses of the detector, for one image (`vmap` over a batch).

First stage: focal loss of the centres (penalty-reduced, CenterNet: Zhou et al. 2019) and
generalized IoU of the boxes. Second stage, on proposals and on disturbed true boxes: score, boxes,
centre, level (smoothed over the neighbouring levels), ribs; masks within the disturbed boxes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from dartjax._types import Scalar
from dartjax.models import (
    DETECTED_LEVELS,
    DetectorConfig,
    Proposals,
    SecondStage,
    VertebraDetector,
    best_proposals,
    box_overlaps,
    decode_boxes,
    decode_centers,
    generalized_overlap,
)
from dartjax.training._detection_views import DetectionTruth

_DISTURBED = 12  # true boxes with errors, added to the proposals
_MASKED = 4  # of them whose mask is learned in a step, which costs most of its time
_PROPOSALS = 16  # of those the network makes
_MATCHED = 0.5  # least IoU of a proposal with the vertebra that it stands for
_CENTER_SPREAD = 0.12  # standard deviation of a centre's target, in sides of the body
_LEAST_SPREAD = 0.8  # cells
_SMOOTHING = 0.1  # probability of each neighbouring level
_SHIFT, _LOG_SIDE = 0.08, 0.12  # largest errors of disturbed boxes, in sides
_CENTER_UNIT = 0.1  # error of a centre, in sides of the box, where the loss turns linear
_WEIGHTS = {"centers": 1.0, "first_boxes": 1.0, "score": 1.0, "boxes": 1.0, "bodies": 1.0}
_WEIGHTS |= {"place": 0.5, "level": 0.5, "ribs": 0.1, "mask": 1.0, "sacrum": 0.1}
_FIRST, _LAST_WITH_RIBS = DETECTED_LEVELS.index("T1"), DETECTED_LEVELS.index("T13")


class _Matched(NamedTuple):
    """Vertebra that each proposal stands for."""

    vertebra: Int[Array, " box"]
    positive: Float[Array, " box"]  # 1 if it stands for one, else 0
    counted: Float[Array, " box"]  # 1 if it is a box at all


def detection_loss(
    net: VertebraDetector,
    params: PyTree,
    image: Float[Array, "h w 3"],
    truth: DetectionTruth,
    *,
    key: PRNGKeyArray,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Compute the loss of one image, and its terms."""
    config = net.config

    def apply(method: Callable[..., Any], *inputs: Any) -> Any:
        return net.apply({"params": params}, *inputs, method=method)

    features, context = apply(net.features, image)
    proposals = apply(net.propose, features)
    heat, boxes = best_proposals(lax.stop_gradient(proposals), config)
    disturbed, chosen = disturbed_boxes(truth, config.image_size, key=key)
    boxes = jnp.concatenate([boxes[:_PROPOSALS], disturbed])
    heat = jnp.concatenate([heat[:_PROPOSALS], jnp.zeros(_DISTURBED)])
    second = apply(net.second_stage, features, context, boxes)
    masks = apply(net.masks, features, disturbed[:_MASKED])
    sacrum = apply(net.sacrum_logit, context)
    some = jnp.any(truth.present).astype(image.dtype)
    terms = {
        "centers": center_loss(proposals, truth, config.stride),
        "first_boxes": _first_box_loss(proposals, truth, config),
        **_second_stage_losses(second, boxes, _match(boxes, heat, truth), truth),
        "mask": some * _mask_loss(masks, disturbed[:_MASKED], chosen[:_MASKED], truth),
        "sacrum": optax.sigmoid_binary_cross_entropy(sacrum, truth.sacrum),
    }
    return jnp.sum(jnp.stack([_WEIGHTS[name] * value for name, value in terms.items()])), terms


def center_targets(truth: DetectionTruth, shape: tuple[int, ...], stride: int) -> Array:
    """Draw the target heatmap: 1 at the cell of each centre, Gaussian around it."""
    cells = _center_cells(truth, shape, stride).astype(jnp.float32)
    sides = truth.body_box[:, 2:] - truth.body_box[:, :2]
    spread = jnp.maximum(_CENTER_SPREAD * jnp.min(sides, axis=1) / stride, _LEAST_SPREAD)
    u, v = jnp.arange(shape[1]), jnp.arange(shape[0])
    away = (u[None, None] - cells[:, 0, None, None]) ** 2
    away = away + (v[None, :, None] - cells[:, 1, None, None]) ** 2
    each = jnp.exp(-0.5 * away / spread[:, None, None] ** 2)
    return jnp.max(jnp.where(truth.present[:, None, None], each, 0.0), axis=0)


def center_loss(proposals: Proposals, truth: DetectionTruth, stride: int) -> Scalar:
    """Compute the penalty-reduced focal loss of the heatmap, per vertebra."""
    target = center_targets(truth, proposals.heat.shape, stride)
    found, missed = jax.nn.log_sigmoid(proposals.heat), jax.nn.log_sigmoid(-proposals.heat)
    probability = jnp.exp(found)
    is_center = target > 0.999
    reward = (1.0 - probability) ** 2 * found
    penalty = (1.0 - target) ** 4 * probability**2 * missed
    total = -jnp.sum(jnp.where(is_center, reward, penalty))
    return total / jnp.maximum(jnp.sum(truth.present), 1)


def _center_cells(
    truth: DetectionTruth, shape: tuple[int, ...], stride: int
) -> Int[Array, "vertebra 2"]:
    """Cell (u, v) of each centre, or of the nearest point of the body's box if it is outside."""
    place = jnp.clip(truth.center, truth.body_box[:, :2], truth.body_box[:, 2:])
    cells = jnp.floor(place / stride).astype(int)
    return jnp.clip(cells, 0, jnp.array([[shape[1] - 1, shape[0] - 1]]))


def _first_box_loss(proposals: Proposals, truth: DetectionTruth, config: DetectorConfig) -> Scalar:
    """One minus generalized IoU of the boxes at the centre and its eight neighbours."""
    shape = proposals.heat.shape
    offsets = jnp.stack(jnp.meshgrid(jnp.arange(-1, 2), jnp.arange(-1, 2)), -1).reshape(-1, 2)
    cells = _center_cells(truth, shape, config.stride)[:, None] + offsets[None]
    cells = jnp.clip(cells.reshape(-1, 2), 0, jnp.array([[shape[1] - 1, shape[0] - 1]]))
    sides = proposals.sides[cells[:, 1], cells[:, 0]]
    middle = (cells + 0.5) * config.stride
    boxes = jnp.concatenate([middle - sides[:, :2], middle + sides[:, 2:]], axis=-1)
    loss = 1.0 - generalized_overlap(boxes, jnp.repeat(truth.box, 9, axis=0))
    return _mean(loss, jnp.repeat(truth.present, 9))


def disturbed_boxes(
    truth: DetectionTruth, size: int, *, key: PRNGKeyArray
) -> tuple[Float[Array, "box 4"], Int[Array, " box"]]:
    """Draw true boxes with errors, and the vertebrae they belong to. Without a vertebra they are
    somewhere in the image."""
    pick, shift, side = jax.random.split(key, 3)
    logits = jnp.where(truth.present, 0.0, -1e9)
    chosen = jax.random.categorical(pick, logits, shape=(_DISTURBED,))
    boxes = truth.box[chosen]
    anywhere = 0.25 * size * jnp.array([[1.0, 1.0, 2.0, 2.0]])
    boxes = jnp.where(jnp.any(truth.present), boxes, anywhere)
    uniform = {"shape": (_DISTURBED, 2), "minval": -1.0}
    sides = boxes[:, 2:] - boxes[:, :2]
    middle = 0.5 * (boxes[:, :2] + boxes[:, 2:])
    middle = middle + _SHIFT * sides * jax.random.uniform(shift, **uniform)
    half = 0.5 * sides * jnp.exp(_LOG_SIDE * jax.random.uniform(side, **uniform))
    return jnp.concatenate([middle - half, middle + half], axis=-1), chosen


def _match(
    boxes: Float[Array, "box 4"], heat: Float[Array, " box"], truth: DetectionTruth
) -> _Matched:
    overlap = jnp.where(truth.present[None], box_overlaps(boxes, truth.box), -1.0)
    best = jnp.argmax(overlap, axis=1)
    counted = jnp.isfinite(heat)
    positive = counted & (jnp.max(overlap, axis=1) >= _MATCHED)
    return _Matched(best, positive.astype(boxes.dtype), counted.astype(boxes.dtype))


def _second_stage_losses(
    second: SecondStage, boxes: Float[Array, "box 4"], matched: _Matched, truth: DetectionTruth
) -> dict[str, Scalar]:
    own, level = truth.box[matched.vertebra], jnp.maximum(truth.level[matched.vertebra], 0)
    bodies, centers = truth.body_box[matched.vertebra], truth.center[matched.vertebra]
    sides = boxes[:, 2:] - boxes[:, :2]
    off = (decode_centers(second.center, boxes) - centers) / sides / _CENTER_UNIT
    off = jnp.sum(jnp.sqrt(1.0 + off**2) - 1.0, axis=-1)
    has_ribs = (level >= _FIRST) & (level <= _LAST_WITH_RIBS)
    box_loss = 1.0 - generalized_overlap(decode_boxes(second.box, boxes), own)
    body_loss = 1.0 - generalized_overlap(decode_boxes(second.body_box, boxes), bodies)
    logs = jax.nn.log_softmax(second.level)
    level_loss = -jnp.sum(_smoothed(level) * logs, axis=-1)
    return {
        "score": _mean(
            optax.sigmoid_binary_cross_entropy(second.score, matched.positive), matched.counted
        ),
        "boxes": _mean(box_loss, matched.positive),
        "bodies": _mean(body_loss, matched.positive),
        "place": _mean(off, matched.positive),
        "level": _mean(level_loss, matched.positive),
        "ribs": _mean(
            optax.sigmoid_binary_cross_entropy(second.ribs, has_ribs.astype(off.dtype)),
            matched.positive,
        ),
    }


def _smoothed(level: Int[Array, " box"]) -> Float[Array, "box level"]:
    """Target distribution over the levels; T13 and L6 are no neighbours of ordinary levels."""
    count = len(DETECTED_LEVELS)
    ordinary = jnp.array([name not in ("T13", "L6") for name in DETECTED_LEVELS])
    rank = jnp.where(ordinary, jnp.cumsum(ordinary), -10)
    near = (jnp.abs(rank[level][:, None] - rank[None]) == 1) & (rank[level][:, None] > 0)
    target = _SMOOTHING * near
    rest = 1.0 - jnp.sum(target, axis=-1)
    return target + rest[:, None] * (jnp.arange(count)[None] == level[:, None])


def _mask_loss(
    logits: Float[Array, "box m m"],
    boxes: Float[Array, "box 4"],
    chosen: Int[Array, " box"],
    truth: DetectionTruth,
) -> Scalar:
    target = mask_in_boxes(truth.mask[chosen], truth.whole_box[chosen], boxes, logits.shape[-1])
    return jnp.mean(jax.vmap(mask_loss)(logits, target))


def mask_loss(logits: Float[Array, "m m"], target: Float[Array, "m m"]) -> Scalar:
    """Compute binary cross-entropy plus one minus soft Dice of one mask."""
    found = jax.nn.sigmoid(logits)
    total = jnp.sum(found**2) + jnp.sum(target**2)
    dice = (2.0 * jnp.sum(found * target) + 1.0) / (total + 1.0)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, target)) + 1.0 - dice


def mask_in_boxes(
    masks: Float[Array, "box m m"],
    places: Float[Array, "box 4"],
    boxes: Float[Array, "box 4"],
    size: int,
) -> Float[Array, "box size size"]:
    """Sample masks, each stored in the cells of its place, in size x size cells of other boxes."""
    cells = masks.shape[-1]
    steps = (jnp.arange(size) + 0.5) / size

    def weights(low: int) -> Float[Array, "box size cell"]:
        at = boxes[:, low, None] + steps[None] * (boxes[:, low + 2] - boxes[:, low])[:, None]
        side = jnp.maximum(places[:, low + 2] - places[:, low], 1e-3)
        cell = (at - places[:, low, None]) / side[:, None] * cells - 0.5
        return jnp.maximum(1.0 - jnp.abs(cell[..., None] - jnp.arange(cells)[None, None]), 0.0)

    return jnp.einsum("npi,nij,nqj->npq", weights(1), masks, weights(0))


def _mean(values: Float[Array, " n"], weights: Array) -> Scalar:
    """Mean of the values with weight 1; 0 if there are none. Others may be NaN."""
    weights = weights.astype(values.dtype)
    total = jnp.sum(jnp.where(weights > 0.0, weights * values, 0.0))
    return total / jnp.maximum(jnp.sum(weights), 1.0)
