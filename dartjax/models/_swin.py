"""Swin Transformer (Liu et al. 2021): attention within windows that shift from block to block.

Modules take one image (h, w, c); `vmap` for a batch. The parameters of the published presets
correspond one to one to those of the published backbones.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Features = Float[Array, "h w c"]
Windows = Float[Array, "window token c"]


@dataclasses.dataclass(frozen=True)
class SwinConfig:
    """Sizes of a backbone. Stage i has width embed_dim 2^i and resolution 1 / (patch 2^i)."""

    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    patch: int = 4
    mlp_ratio: float = 4.0
    drop_path: float = 0.2  # rate in the last block; grows linearly from 0
    conv_stem: bool = False  # convolutions instead of one patch embedding, for short trainings


SWIN_PRESETS: dict[str, SwinConfig] = {
    "nano": SwinConfig(24, (2, 2, 2), (2, 4, 8), window=6, drop_path=0.0),
    "tiny": SwinConfig(),
    "base": SwinConfig(128, (2, 2, 18, 2), (4, 8, 16, 32), drop_path=0.5),
}


def to_windows(x: Features, window: int) -> Windows:
    """Split a feature map into non-overlapping square windows, windows and tokens in row-major
    order. The sides must be multiples of `window`."""
    height, width, channels = x.shape
    tiles = x.reshape(height // window, window, width // window, window, channels)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(-1, window * window, channels)


def from_windows(windows: Windows, height: int, width: int) -> Features:
    """Assemble a feature map from windows: inverse of `to_windows`."""
    window = round(windows.shape[1] ** 0.5)
    tiles = windows.reshape(height // window, width // window, window, window, -1)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(height, width, -1)


def relative_positions(window: int) -> Int[np.ndarray, "token token"]:
    """Index all token pairs of a window into a table of (2 window - 1)^2 relative offsets."""
    place = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij"), -1)
    place = place.reshape(-1, 2)
    offset = place[:, None] - place[None] + window - 1
    return offset[..., 0] * (2 * window - 1) + offset[..., 1]


def shift_mask(
    height: int, width: int, window: int, shift: int
) -> Bool[np.ndarray, "window token token"]:
    """Compute the attention mask of an image rolled by -shift: tokens of a window attend to each
    other if they were in one region before the roll."""

    def region(size: int) -> np.ndarray:
        place = np.arange(size)
        return (place >= size - window).astype(int) + (place >= size - shift)

    regions = 3 * region(height)[:, None] + region(width)[None]
    tiles = regions.reshape(height // window, window, width // window, window)
    tokens = tiles.transpose(0, 2, 1, 3).reshape(-1, window * window)
    return tokens[:, :, None] == tokens[:, None]


class WindowAttention(nn.Module):
    """Multi-head attention among the tokens of each window, with a learned bias per head and
    relative position. `mask` selects the token pairs that attend; None = all."""

    num_heads: int
    window: int

    @nn.compact
    def __call__(
        self, x: Windows, mask: Bool[np.ndarray, "window token token"] | None = None
    ) -> Windows:
        """Compute the tokens after attention."""
        channels, num_tokens = x.shape[-1], self.window**2
        head_dim = channels // self.num_heads
        qkv = nn.Dense(3 * channels, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, self.num_heads, head_dim), 2, 0)
        table = self.param(
            "relative_position_bias",
            nn.initializers.truncated_normal(0.02),
            ((2 * self.window - 1) ** 2, self.num_heads),
        )
        bias = table[relative_positions(self.window).reshape(-1)]
        bias = bias.reshape(num_tokens, num_tokens, self.num_heads).transpose(2, 0, 1)
        scores = jnp.einsum("wqhd,wkhd->whqk", q, k) * head_dim**-0.5 + bias[None]
        if mask is not None:
            scores = jnp.where(mask[:, None], scores, -jnp.inf)
        mixed = jnp.einsum("whqk,wkhd->wqhd", jax.nn.softmax(scores), v)
        return nn.Dense(channels, name="proj")(mixed.reshape(x.shape))


class SwinBlock(nn.Module):
    """Pre-norm residual block: attention within windows, then an MLP.

    `shift` moves the windows by that many tokens; a map no larger than a window is one window
    without a shift. Sides that are not multiples of the window are padded with zeros, which are
    not masked in the attention, as in the published code.
    """

    num_heads: int
    window: int
    shift: int = 0
    mlp_ratio: float = 4.0
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: Features, deterministic: bool = True) -> Features:
        """Compute features of the same shape."""
        rate = 0.0 if deterministic else self.drop_path
        x = x + self._drop_path(self._attention(nn.LayerNorm(name="norm1")(x)), rate)
        return x + self._drop_path(self._mlp(nn.LayerNorm(name="norm2")(x)), rate)

    def _mlp(self, x: Features) -> Features:
        hidden = nn.Dense(int(self.mlp_ratio * x.shape[-1]), name="fc1")(x)
        return nn.Dense(x.shape[-1], name="fc2")(nn.gelu(hidden, approximate=False))

    def _drop_path(self, branch: Features, rate: float) -> Features:
        """Drop a branch with probability `rate`, else scale it up (stochastic depth)."""
        if rate == 0.0:
            return branch
        kept = jax.random.bernoulli(self.make_rng("drop_path"), 1.0 - rate)
        return jnp.where(kept, branch / (1.0 - rate), 0.0)

    def _attention(self, x: Features) -> Features:
        height, width, _ = x.shape
        window = min(self.window, height, width)
        shift = self.shift if min(height, width) > window else 0
        down, right = -height % window, -width % window
        padded = jnp.pad(x, ((0, down), (0, right), (0, 0)))
        rolled = jnp.roll(padded, (-shift, -shift), (0, 1))
        rows, columns = padded.shape[:2]
        mask = shift_mask(rows, columns, window, shift) if shift else None
        attend = WindowAttention(self.num_heads, window, name="attention")
        mixed = from_windows(attend(to_windows(rolled, window), mask), rows, columns)
        return jnp.roll(mixed, (shift, shift), (0, 1))[:height, :width]


class PatchMerging(nn.Module):
    """Merge 2 x 2 tokens into one of twice the width. Odd sides are padded with zeros."""

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "half_h half_w 2*c"]:
        """Compute features at half the resolution."""
        height, width, channels = x.shape
        x = jnp.pad(x, ((0, height % 2), (0, width % 2), (0, 0)))
        corners = [x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]]
        merged = nn.LayerNorm(name="norm")(jnp.concatenate(corners, axis=-1))
        return nn.Dense(2 * channels, use_bias=False, name="reduction")(merged)


class SwinTransformer(nn.Module):
    """Swin backbone: one feature map per stage, from fine to coarse, the last one normalised."""

    config: SwinConfig

    @nn.compact
    def __call__(self, image: Features, deterministic: bool = True) -> list[Float[Array, "_ _ _"]]:
        """Compute the feature maps of an image whose sides are multiples of the patch."""
        config = self.config
        x = nn.LayerNorm(name="patch_norm")(self._tokens(image))
        rates = np.linspace(0.0, config.drop_path, sum(config.depths)).tolist()
        maps = []
        for stage, (depth, heads) in enumerate(zip(config.depths, config.num_heads, strict=True)):
            if stage:
                x = PatchMerging(name=f"merge{stage}")(x)
            x = self._stage(x, stage, heads, rates[:depth], deterministic)
            rates = rates[depth:]
            maps.append(x)
        return [*maps[:-1], nn.LayerNorm(name="norm")(maps[-1])]

    def _tokens(self, image: Features) -> Float[Array, "_ _ _"]:
        """Embed every patch: linearly as published, or by convolutions of stride 2 (Xiao et al.
        2021, Early convolutions help transformers see better)."""
        config = self.config
        if not config.conv_stem:
            size = (config.patch, config.patch)
            return nn.Conv(config.embed_dim, size, size, padding="VALID", name="patch_embed")(image)
        x, halvings = image, config.patch.bit_length() - 1
        for i in range(halvings):
            width = config.embed_dim >> (halvings - 1 - i)
            x = nn.gelu(nn.Conv(width, (3, 3), (2, 2), name=f"stem{i}")(x))
        return nn.Dense(config.embed_dim, name="stem_out")(x)

    def _stage(
        self, x: Features, stage: int, heads: int, rates: Sequence[float], deterministic: bool
    ) -> Features:
        config = self.config
        for i, rate in enumerate(rates):
            shift = config.window // 2 if i % 2 else 0
            x = SwinBlock(
                heads, config.window, shift, config.mlp_ratio, rate, name=f"stage{stage}_block{i}"
            )(x, deterministic)
        return x
