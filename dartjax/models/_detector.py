"""Swin Mask R-CNN with static shapes: finds the vertebrae in one radiograph.

Spine-DART (arXiv 2512.05803, section 4.1) detects vertebrae with a Mask R-CNN on a Swin
Transformer. The first stage here is a heatmap of vertebral centres (probabilistic two-stage
detection, Zhou et al. 2021): its highest peaks are the proposals, so that every shape is static
and the whole network can be compiled and mapped over images. The second stage pools the features
of every proposal (RoIAlign) and predicts score, boxes, centre, level and mask.

One image at a time: `vmap` for a batch.
"""

import dataclasses

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax._types import Image, Scalar
from dartjax.models._boxes import (
    Boxes,
    decode_boxes,
    local_peaks,
    roi_align,
    suppress_duplicates,
)
from dartjax.models._pyramid import FeaturePyramid
from dartjax.models._swin import SWIN_PRESETS, SwinConfig, SwinTransformer

Features = Float[Array, "row column c"]
# The classes of the level head: every level that a spine can have below C6.
DETECTED_LEVELS = (
    "C7",
    *(f"T{i}" for i in range(1, 14)),
    *(f"L{i}" for i in range(1, 7)),
)
_FIRST_SIDE = 5.0  # of a box from its centre, in cells, before training
_RARE = -4.6  # log odds of a centre before training
_SMOOTH = 16  # px, of the smooth part of an image
_FINE_GAIN = 0.5
_LEAST_CONTRAST = 0.015  # of the fine part, in ranges of the image
_DUPLICATE = 0.5  # IoU of two bodies that are the same vertebra


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """Sizes of a detector."""

    swin: SwinConfig
    image_size: int  # px, square
    channels: int  # of the feature pyramid
    hidden: int  # width of the second stage
    num_proposals: int = 24
    box_size: int = 7  # features pooled per box and side
    mask_size: int = 14  # likewise for the mask, which has twice as many pixels

    @property
    def stride(self) -> int:
        """Pixels of the image per feature."""
        return self.swin.patch


DETECTOR_PRESETS: dict[str, DetectorConfig] = {
    "smoke": DetectorConfig(SwinConfig(8, (1, 1), (2, 2), window=4, drop_path=0.0), 64, 8, 16, 6),
    # Windows of 6 tokens fit every map without padding; few heads and narrow MLPs suit CPUs.
    "nano": DetectorConfig(
        SwinConfig(24, (2, 2, 2), (1, 2, 4), 6, mlp_ratio=2.0, drop_path=0.0, conv_stem=True),
        image_size=192,
        channels=32,
        hidden=128,
    ),
    "tiny": DetectorConfig(SWIN_PRESETS["tiny"], 512, 256, 1024),
    "base": DetectorConfig(SWIN_PRESETS["base"], 512, 256, 1024),
}


class Proposals(eqx.Module):
    """First stage: logits of the centres, and the box around every cell of the map."""

    heat: Float[Array, "row column"]
    sides: Float[Array, "row column 4"]  # px from the cell's centre: left, top, right, bottom


class SecondStage(eqx.Module):
    """Second stage: what is said of each proposed box."""

    score: Float[Array, " box"]  # logit
    box: Float[Array, "box 4"]  # of the whole vertebra, code relative to the proposal
    body_box: Float[Array, "box 4"]  # of the projected body, code relative to the proposal
    center: Float[Array, "box 2"]  # body centroid, in sides of the proposal from its centre
    level: Float[Array, "box level"]  # logits of DETECTED_LEVELS
    ribs: Float[Array, " box"]  # logit: the vertebra carries ribs


class FoundVertebrae(eqx.Module):
    """Vertebrae found in one image, a fixed number of which `valid` ones count. Pixels of the
    network's image."""

    valid: Bool[Array, " box"]
    score: Float[Array, " box"]  # 0 to 1
    box: Boxes
    body_box: Boxes
    center: Float[Array, "box 2"]
    log_level: Float[Array, "box level"]  # log probability of DETECTED_LEVELS
    ribs: Float[Array, " box"]  # probability
    mask: Float[Array, "box 28 28"]  # probability, within the box
    sacrum: Scalar  # probability that the sacrum is in view


class VertebraDetector(nn.Module):
    """Backbone, feature pyramid, and the heads of both stages.

    `__call__` finds the vertebrae; training calls `features`, `propose`, `second_stage`, `masks`
    and `sacrum_logit` one by one.
    """

    config: DetectorConfig

    def setup(self) -> None:
        """Make the parts."""
        config = self.config
        self.backbone = SwinTransformer(config.swin)
        self.pyramid = FeaturePyramid(config.channels)
        self.center_head = _CenterHead(config.channels, config.stride)
        self.box_head = _BoxHead(config.hidden)
        self.mask_head = _MaskHead(config.channels)
        self.sacrum_head = nn.Dense(1)

    def features(
        self, image: Float[Array, "h w 3"], deterministic: bool = True
    ) -> tuple[Features, Float[Array, " context"]]:
        """Compute the finest map of the pyramid, and the mean of the coarsest map: the context.

        `image` has the channels of `detector_input`."""
        maps = self.backbone(image, deterministic)
        return self.pyramid(maps), jnp.mean(maps[-1], axis=(0, 1))

    def propose(self, features: Features) -> Proposals:
        """Compute the heatmap of the centres and the boxes around them."""
        return self.center_head(features)

    def second_stage(
        self, features: Features, context: Float[Array, " context"], boxes: Boxes
    ) -> SecondStage:
        """Compute what is said of each proposed box."""
        config = self.config
        pooled = roi_align(features, boxes, config.box_size, config.stride)
        return self.box_head(pooled, context, boxes / config.image_size)

    def masks(self, features: Features, boxes: Boxes) -> Float[Array, "box 28 28"]:
        """Compute the logits of the mask within each box."""
        return self.mask_head(roi_align(features, boxes, self.config.mask_size, self.config.stride))

    def sacrum_logit(self, context: Float[Array, " context"]) -> Scalar:
        """Compute the logit that the sacrum is in view."""
        return self.sacrum_head(context)[0]

    def __call__(self, image: Float[Array, "h w 3"]) -> FoundVertebrae:
        """Find the vertebrae in one image (`detector_input`)."""
        features, context = self.features(image)
        heat, proposals = best_proposals(self.propose(features), self.config)
        second = self.second_stage(features, context, proposals)
        boxes = _within(decode_boxes(second.box, proposals), self.config.image_size)
        bodies = _within(decode_boxes(second.body_box, proposals), self.config.image_size)
        # The geometric mean of both stages: a vertebra must be likely in each.
        score = jnp.sqrt(jax.nn.sigmoid(heat) * jax.nn.sigmoid(second.score))
        return FoundVertebrae(
            valid=suppress_duplicates(bodies, score, jnp.isfinite(heat), _DUPLICATE),
            score=score,
            box=boxes,
            body_box=bodies,
            center=decode_centers(second.center, proposals),
            log_level=jax.nn.log_softmax(second.level),
            ribs=jax.nn.sigmoid(second.ribs),
            mask=jax.nn.sigmoid(self.masks(features, boxes)),
            sacrum=jax.nn.sigmoid(self.sacrum_logit(context)),
        )


def best_proposals(
    proposals: Proposals, config: DetectorConfig
) -> tuple[Float[Array, " box"], Boxes]:
    """Choose the highest peaks of the heatmap; their logits (-inf if there are too few peaks), and
    their boxes within the image."""
    heat, cells = local_peaks(proposals.heat, config.num_proposals)
    middle = (cells[:, ::-1] + 0.5) * config.stride
    sides = proposals.sides[cells[:, 0], cells[:, 1]]
    boxes = jnp.concatenate([middle - sides[:, :2], middle + sides[:, 2:]], axis=-1)
    return heat, _within(boxes, config.image_size)


def decode_centers(shifts: Float[Array, "box 2"], proposals: Boxes) -> Float[Array, "box 2"]:
    """Compute the predicted centres, px, from their shifts in sides of the proposals."""
    sides = proposals[:, 2:] - proposals[:, :2]
    return 0.5 * (proposals[:, :2] + proposals[:, 2:]) + shifts * sides


def detector_input(image: Image, exposed: Image) -> Float[Array, "h w 3"]:
    """Normalise a radiograph for the detector: the 2nd and 98th percentile of the exposed field
    become 0 and 1, values beyond are compressed to -.2 and 1.2, and what is not exposed is 0.

    Percentiles of every fourth pixel: the unit and the offset of the grey values do not matter.
    The second channel is the first one without its smooth part, divided by its local contrast, the
    third the exposed field (1 inside). An image without exposed pixels, or of one value, gives 0.
    """
    coarse, seen = image[::4, ::4], exposed[::4, ::4] > 0.5
    ordered = jnp.sort(jnp.where(seen, coarse, jnp.inf).reshape(-1))
    count = jnp.sum(seen)
    low, high = (
        ordered[jnp.clip((share * count).astype(int), 0, ordered.size - 1)]
        for share in (0.02, 0.98)
    )
    known = jnp.isfinite(low) & jnp.isfinite(high) & (high > low)
    scaled = (image - jnp.where(known, low, 0.0)) / jnp.where(known, high - low, 1.0)
    scaled = jnp.clip(jnp.where(known, scaled, 0.0), -0.2, 1.2)
    inside = (exposed > 0.5).astype(image.dtype)
    scaled = jnp.where(inside > 0.0, scaled, 0.0)
    fine = jnp.where(inside > 0.0, scaled - _smoothed(scaled, inside), 0.0)
    contrast = jnp.sqrt(_smoothed(fine**2, inside) + _LEAST_CONTRAST**2)
    return jnp.stack([scaled, _FINE_GAIN * fine / contrast, inside], axis=-1)


def _smoothed(image: Image, inside: Image) -> Image:
    """Smooth the exposed part of an image over cells of 16 px."""
    cells = tuple(-(-side // _SMOOTH) for side in image.shape)
    coarse = jax.image.resize(image * inside, cells, "linear")
    weight = jax.image.resize(inside, cells, "linear")
    return jax.image.resize(coarse / jnp.maximum(weight, 0.05), image.shape, "linear")


def _within(boxes: Boxes, size: int) -> Boxes:
    """Limit boxes to the image, with sides of at least 1 px."""
    low = jnp.clip(boxes[:, :2], 0.0, size - 1.0)
    return jnp.concatenate([low, jnp.clip(boxes[:, 2:], low + 1.0, float(size))], axis=-1)


class _CenterHead(nn.Module):
    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: Features) -> Proposals:
        x = nn.gelu(nn.Conv(self.channels, (3, 3), name="hidden")(x))
        out = nn.Dense(5, name="out", kernel_init=nn.initializers.normal(0.01))(x)
        sides = _FIRST_SIDE * self.stride * jnp.exp(jnp.clip(out[..., 1:], -4.0, 4.0))
        return Proposals(heat=out[..., 0] + _RARE, sides=sides)


class _BoxHead(nn.Module):
    """Second stage: two hidden layers over the pooled features, the context and the place."""

    hidden: int

    @nn.compact
    def __call__(
        self,
        pooled: Float[Array, "box size size c"],
        context: Float[Array, " context"],
        places: Float[Array, "box 4"],
    ) -> SecondStage:
        x = nn.Dense(self.hidden, name="pooled")(pooled.reshape(len(pooled), -1))
        x += nn.Dense(self.hidden, name="context")(context)[None]
        x += nn.Dense(self.hidden, name="place")(places)
        x = nn.gelu(nn.LayerNorm(name="norm")(x))
        x = nn.gelu(nn.Dense(self.hidden, name="hidden")(x))
        widths = (1, 4, 4, 2, len(DETECTED_LEVELS), 1)
        out = nn.Dense(sum(widths), name="out", kernel_init=nn.initializers.normal(0.01))(x)
        ends = [sum(widths[:i]) for i in range(1, len(widths))]
        score, box, body_box, center, level, ribs = jnp.split(out, ends, axis=-1)
        return SecondStage(score[:, 0], box, body_box, center, level, ribs[:, 0])


class _MaskHead(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, pooled: Float[Array, "box size size c"]) -> Float[Array, "box m m"]:
        x = nn.gelu(nn.Conv(self.channels, (3, 3), name="first")(pooled))
        x = nn.gelu(nn.Conv(self.channels, (3, 3), name="second")(x))
        x = nn.gelu(nn.ConvTranspose(self.channels // 2, (2, 2), (2, 2), name="finer")(x))
        return nn.Dense(1, name="out")(x)[..., 0]
