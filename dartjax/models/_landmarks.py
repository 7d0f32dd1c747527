"""Landmark network: ten landmarks and the mask of one vertebra in a crop of a radiograph.

The backbone of the detector, trained anew for landmarks (Spine-DART, arXiv 2512.05803, section
4.1). One heatmap per landmark; its mean is the landmark (soft-argmax), with a predicted deviation.
The direction of the view, which is known, tells left from right. One crop at a time: `vmap` for a
batch.
"""

import dataclasses

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._types import Matrix3
from dartjax.anatomy import LANDMARK_NAMES, NUM_LANDMARKS, PARTNER
from dartjax.models._pyramid import FeaturePyramid
from dartjax.models._swin import SWIN_PRESETS, SwinConfig, SwinTransformer

# Landmarks with a partner on the other side, the left ones first.
LANDMARK_PAIRS: tuple[tuple[int, int], ...] = tuple(
    (i, PARTNER[i]) for i, name in enumerate(LANDMARK_NAMES) if name.startswith("left")
)
_LOG_SIGMA = (-1.0, 3.5)  # range of the log deviation: .4 to 33 px
_FIRST_LOG_SIGMA = 1.5  # before training


@dataclasses.dataclass(frozen=True)
class LandmarkConfig:
    """Sizes of a landmark network."""

    swin: SwinConfig
    image_size: int  # px, square
    channels: int  # of the feature pyramid

    @property
    def map_size(self) -> int:
        """Cells of a heatmap, and of the mask, per side."""
        return 2 * self.image_size // self.swin.patch


LANDMARK_PRESETS: dict[str, LandmarkConfig] = {
    "smoke": LandmarkConfig(SwinConfig(8, (1, 1), (2, 2), window=4, drop_path=0.0), 128, 8),
    # Windows of 8 tokens fit every map of a crop of 128 px without padding.
    "nano": LandmarkConfig(
        SwinConfig(24, (2, 2, 2), (1, 2, 4), 8, mlp_ratio=2.0, drop_path=0.0, conv_stem=True),
        image_size=128,
        channels=32,
    ),
    "tiny": LandmarkConfig(SWIN_PRESETS["tiny"], 128, 128),
    "base": LandmarkConfig(SWIN_PRESETS["base"], 128, 256),
}


class FoundLandmarks(eqx.Module):
    """Landmarks and mask of one vertebra. Pixels of the crop."""

    landmarks: Float[Array, "10 2"]
    log_sigma: Float[Array, " 10"]  # log of the standard deviation per axis, px
    swapped: Float[Array, " 3"]  # logit that left and right are exchanged, of LANDMARK_PAIRS
    heat: Float[Array, "10 m m"]  # logits
    mask: Float[Array, "m m"]  # logits


class LandmarkNet(nn.Module):
    """Backbone, feature pyramid, heatmaps at half the resolution of the crop, and deviations."""

    config: LandmarkConfig

    @nn.compact
    def __call__(self, image: Float[Array, "h w 3"], view: Matrix3) -> FoundLandmarks:
        """Find the landmarks in a crop (`detector_input`). `view` has the axes of the camera
        (right, down, along the beam) in the patient's axes as rows."""
        channels = self.config.channels
        maps = SwinTransformer(self.config.swin, name="backbone")(image)
        told = nn.Dense(maps[-1].shape[-1], name="view")(view.reshape(-1))
        maps[-1] = maps[-1] + told[None, None]
        x = FeaturePyramid(channels, name="pyramid")(maps)
        x = nn.gelu(nn.ConvTranspose(channels, (2, 2), (2, 2), name="finer")(x))
        x = x + nn.gelu(nn.Conv(channels, (3, 3), name="smooth")(x))
        out = nn.Dense(NUM_LANDMARKS + 1, name="maps")(x)
        heat = jnp.moveaxis(out[..., :NUM_LANDMARKS], -1, 0)
        shares = jax.nn.softmax(heat.reshape(NUM_LANDMARKS, -1)).reshape(heat.shape)
        context = jnp.mean(maps[-1], axis=(0, 1))
        log_sigma, swapped = _Deviations(name="deviations")(shares, x, context)
        return FoundLandmarks(
            landmarks=_means(shares, image.shape[0] / heat.shape[-1]),
            log_sigma=log_sigma,
            swapped=swapped,
            heat=heat,
            mask=out[..., NUM_LANDMARKS],
        )


class _Deviations(nn.Module):
    """Deviation of every landmark, and the logits of exchanged pairs, from the features where the
    landmarks are, the widths of their heatmaps, and the context."""

    hidden: int = 64

    @nn.compact
    def __call__(
        self,
        shares: Float[Array, "10 m m"],
        features: Float[Array, "m m c"],
        context: Float[Array, " context"],
    ) -> tuple[Float[Array, " 10"], Float[Array, " 3"]]:
        # The heatmaps learn from the landmarks alone, not from what is said of their errors.
        shares = jax.lax.stop_gradient(shares)
        own = jnp.einsum("kij,ijc->kc", shares, features)
        peak = jnp.log(jnp.max(shares, axis=(1, 2)))[:, None]
        x = nn.Dense(self.hidden, name="own")(jnp.concatenate([own, peak], axis=-1))
        x += nn.Dense(self.hidden, name="context")(context)[None]
        kind = nn.initializers.normal(0.1)
        x = nn.gelu(x + self.param("kind", kind, (NUM_LANDMARKS, self.hidden)))
        log_sigma = nn.Dense(1, name="sigma", kernel_init=nn.initializers.zeros)(x)[:, 0]
        pairs = jnp.array(LANDMARK_PAIRS)
        both = x[pairs[:, 0]] + x[pairs[:, 1]]
        swapped = nn.Dense(1, name="swapped", kernel_init=nn.initializers.zeros)(both)[:, 0]
        return jnp.clip(_FIRST_LOG_SIGMA + log_sigma, *_LOG_SIGMA), swapped - 2.0


def _means(shares: Float[Array, "10 m m"], cell: float) -> Float[Array, "10 2"]:
    """Mean place of every heatmap, (u, v) in px; `cell` is the side of a cell in px."""
    middle = cell * (jnp.arange(shares.shape[-1]) + 0.5)
    u = jnp.sum(shares, axis=1) @ middle
    v = jnp.sum(shares, axis=2) @ middle
    return jnp.stack([u, v], axis=-1)
