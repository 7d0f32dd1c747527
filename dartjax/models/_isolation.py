"""Isolation network: predicts the image of one vertebra alone from a full radiograph.

A radiograph is a sum over all structures in the beam. The network takes a crop around one
vertebra and an optional estimate of its position, and predicts the path lengths through this
vertebra alone: through its solid and its shell, the channels of `dartjax.render.splat`. A fit then
compares images of the same quantity.
"""

import dataclasses

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._types import Image
from dartjax.models._swin import SwinBlock

THICKNESS_UNIT_MM = 20.0
SHELL_UNIT_MM = 5.0
_LOG_ERROR = (-2.0, 3.5)  # range of the predicted log error: .14 to 33 mm
Features = Float[Array, "_ _ _"]


class Isolated(eqx.Module):
    """Predicted images of the vertebra alone, in the pixels of the crop."""

    thickness: Image  # path length in its solid, mm
    shell: Image  # path length in its cortical shell, mm
    mask_logit: Image
    log_error: Image  # log of the expected |error| of the thickness, mm


class Hint(eqx.Module):
    """Prior information on the vertebra: its mask in [0, 1] (all 0 = none) and the rendering of an
    initial estimate in this view (all 0 = none)."""

    mask: Image
    thickness: Image  # mm
    shell: Image  # mm
    silhouette: Image


@dataclasses.dataclass(frozen=True)
class IsolationConfig:
    """Sizes of an isolation network.

    `widths` are the channels from the finest to the coarsest level. The first level has the
    resolution of the crop over `stride`, each further level half of the previous one. The coarsest
    level has `num_blocks` pairs of Swin blocks, plain and shifted."""

    widths: tuple[int, ...]
    stride: int = 1
    num_blocks: int = 1
    num_heads: int = 4
    window: int = 4


ISOLATION_PRESETS: dict[str, IsolationConfig] = {
    "smoke": IsolationConfig((8, 12, 16), stride=2),
    "cpu60": IsolationConfig((16, 32, 64, 96), stride=2),
    "h200_30": IsolationConfig((32, 64, 128, 256, 384), num_blocks=2, num_heads=8, window=8),
    "paper": IsolationConfig((48, 96, 192, 384, 768), num_blocks=3, num_heads=12, window=8),
}


class IsolationNet(nn.Module):
    """U-Net with Swin blocks at the coarsest level. The sides of the crop must be multiples of
    stride 2^(levels - 1)."""

    config: IsolationConfig

    @nn.compact
    def __call__(self, image: Image, hint: Hint) -> Isolated:
        """Predict the vertebra alone from line integrals `image`, standardised, in any unit."""
        stride = (self.config.stride,) * 2
        x = nn.Conv(self.config.widths[0], (3, 3), stride, name="stem")(
            _input_channels(image, hint)
        )
        skips = []
        for level, width in enumerate(self.config.widths):
            if level:
                skips.append(x)
                x = nn.Conv(width, (2, 2), (2, 2), name=f"down{level}")(x)
            x = _ConvBlock(width, name=f"encode{level}")(x)
        x = self._attention_blocks(x)
        for level in reversed(range(len(skips))):
            width = self.config.widths[level]
            finer = jax.image.resize(x, (*skips[level].shape[:2], x.shape[2]), "bilinear")
            x = jnp.concatenate([skips[level], finer], axis=-1)
            x = _ConvBlock(width, name=f"decode{level}")(nn.Dense(width, name=f"mix{level}")(x))
        # The output is added to the initial estimate: the network learns its correction.
        out = nn.Dense(4, name="head", kernel_init=nn.initializers.zeros)(x)
        out = jax.image.resize(out, (*image.shape, 4), "bilinear")
        has_estimate = jnp.max(hint.silhouette) > 0.0
        return Isolated(
            thickness=jnp.where(has_estimate, hint.thickness, 0.0)
            + THICKNESS_UNIT_MM * out[..., 0],
            shell=jnp.where(has_estimate, hint.shell, 0.0) + SHELL_UNIT_MM * out[..., 1],
            mask_logit=4.0 * (hint.silhouette + hint.mask - 1.0) + out[..., 2],
            log_error=jnp.clip(1.0 + out[..., 3], *_LOG_ERROR),
        )

    def _attention_blocks(self, x: Features) -> Features:
        config = self.config
        for i in range(2 * config.num_blocks):
            shift = config.window // 2 if i % 2 else 0
            x = SwinBlock(config.num_heads, config.window, shift, name=f"swin{i}")(x)
        return x


class _ConvBlock(nn.Module):
    """Residual block of two convolutions, normalised over the channels."""

    width: int

    @nn.compact
    def __call__(self, x: Features) -> Features:
        hidden = nn.Conv(self.width, (3, 3), name="first")(nn.LayerNorm(name="norm1")(x))
        hidden = nn.LayerNorm(name="norm2")(nn.gelu(hidden))
        return x + nn.Conv(self.width, (3, 3), name="second")(hidden)


def _input_channels(image: Image, hint: Hint) -> Float[Array, "h w 6"]:
    """Stack the input channels: image, image without its smooth part, and the hint."""
    height, width = image.shape
    # The variance is limited before the root, whose derivative at 0 is infinite.
    spread = jnp.sqrt(jnp.maximum(jnp.var(image), 1e-12))
    standard = (image - jnp.mean(image)) / spread
    coarse = jax.image.resize(standard, (height // 16, width // 16), "linear")
    fine = standard - jax.image.resize(coarse, (height, width), "linear")
    return jnp.stack(
        [
            standard,
            2.0 * fine,
            hint.mask,
            hint.thickness / THICKNESS_UNIT_MM,
            hint.shell / SHELL_UNIT_MM,
            hint.silhouette,
        ],
        axis=-1,
    )


def no_hint(image: Image) -> Hint:
    """Return an empty hint: no mask and no initial estimate."""
    nothing = jnp.zeros_like(image)
    return Hint(nothing, nothing, nothing, nothing)
