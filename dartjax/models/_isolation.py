"""Isolation: what one vertebra alone would look like, from a radiograph that shows everything.

An X-ray image is a sum over all that stands in the beam. The network takes a crop around one
vertebra, with whatever is known of where it is, and predicts the path lengths through it alone:
through its solid and through its shell, as `dartjax.render.splat` makes them of a surface. A fit
then compares like with like.
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
_LOG_ERROR = (-2.0, 3.5)  # of the predicted error in mm: .14 to 33 mm
Features = Float[Array, "_ _ _"]


class Isolated(eqx.Module):
    """The vertebra alone, in the pixels of the crop."""

    thickness: Image  # mm of its solid
    shell: Image  # mm of its cortical shell
    mask_logit: Image
    log_error: Image  # log of the expected |error| of the thickness, mm


class Hint(eqx.Module):
    """What is known before: a mask of the vertebra (in [0, 1]; all 0 = none) and what a first
    guess of it looks like in this view (all 0 = none)."""

    mask: Image
    thickness: Image  # mm
    shell: Image  # mm
    silhouette: Image


@dataclasses.dataclass(frozen=True)
class IsolationConfig:
    """Widths from fine to coarse, each level at half the resolution of the one before, the first
    at that of the crop over `stride`; on the coarsest `num_blocks` pairs of Swin blocks, plain and
    shifted."""

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
    """U-Net with Swin blocks where the image is coarsest. The sides of the crop must be multiples
    of stride 2^(levels - 1)."""

    config: IsolationConfig

    @nn.compact
    def __call__(self, image: Image, hint: Hint) -> Isolated:
        """`image` holds line integrals in any unit: it is standardised over the crop."""
        stride = (self.config.stride,) * 2
        x = nn.Conv(self.config.widths[0], (3, 3), stride, name="stem")(_stacked(image, hint))
        skips = []
        for level, width in enumerate(self.config.widths):
            if level:
                skips.append(x)
                x = nn.Conv(width, (2, 2), (2, 2), name=f"down{level}")(x)
            x = _ConvBlock(width, name=f"encode{level}")(x)
        x = self._attended(x)
        for level in reversed(range(len(skips))):
            width = self.config.widths[level]
            finer = jax.image.resize(x, (*skips[level].shape[:2], x.shape[2]), "bilinear")
            x = jnp.concatenate([skips[level], finer], axis=-1)
            x = _ConvBlock(width, name=f"decode{level}")(nn.Dense(width, name=f"mix{level}")(x))
        # The guess is a first answer, so that the network has to find only what is wrong with it.
        out = nn.Dense(4, name="head", kernel_init=nn.initializers.zeros)(x)
        out = jax.image.resize(out, (*image.shape, 4), "bilinear")
        known = jnp.max(hint.silhouette) > 0.0
        return Isolated(
            thickness=jnp.where(known, hint.thickness, 0.0) + THICKNESS_UNIT_MM * out[..., 0],
            shell=jnp.where(known, hint.shell, 0.0) + SHELL_UNIT_MM * out[..., 1],
            mask_logit=4.0 * (hint.silhouette + hint.mask - 1.0) + out[..., 2],
            log_error=jnp.clip(1.0 + out[..., 3], *_LOG_ERROR),
        )

    def _attended(self, x: Features) -> Features:
        own = self.config
        for i in range(2 * own.num_blocks):
            shift = own.window // 2 if i % 2 else 0
            x = SwinBlock(own.num_heads, own.window, shift, name=f"swin{i}")(x)
        return x


class _ConvBlock(nn.Module):
    """Two convolutions around which the input is added; normalised over the channels."""

    width: int

    @nn.compact
    def __call__(self, x: Features) -> Features:
        hidden = nn.Conv(self.width, (3, 3), name="first")(nn.LayerNorm(name="norm1")(x))
        hidden = nn.LayerNorm(name="norm2")(nn.gelu(hidden))
        return x + nn.Conv(self.width, (3, 3), name="second")(hidden)


def _stacked(image: Image, hint: Hint) -> Float[Array, "h w 6"]:
    """The input channels: image, what it is after its smooth part is taken away, and the hint."""
    height, width = image.shape
    spread = jnp.maximum(jnp.std(image), 1e-6)
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
    """Nothing is known."""
    nothing = jnp.zeros_like(image)
    return Hint(nothing, nothing, nothing, nothing)
