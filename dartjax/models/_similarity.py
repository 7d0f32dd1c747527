"""Multi-view similarity network: predicts the surface error of a fitted vertebra from all views.

Spine-DART (arXiv 2512.05803, section 4.3) learns a metric of all views that predicts the mean
surface distance. Here the tokens of every view are encoded with the geometry of its camera, not
with its index: the number and order of views are free.
"""

import dataclasses

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._types import Image, Scalar

NUM_MODES = 15
_LOG_VARIANCE = (-5.0, 3.0)
Tokens = Float[Array, "token d"]


class ViewPair(eqx.Module):
    """One view: crop of the radiograph, rendering of the current fit, and geometry of the view in
    the frame of the fitted vertebra (see `view_code`). K views have a leading axis."""

    observed: Float[Array, "*view h w"]
    mask: Float[Array, "*view h w"]  # of the vertebra in the radiograph; all 0 = unknown
    rendered: Float[Array, "*view h w"]
    silhouette: Float[Array, "*view h w"]
    code: Float[Array, "*view 7"]


class PredictedError(eqx.Module):
    """Predicted error of a fit, and the correction toward the ground truth."""

    log_masd: Scalar  # log(1 + mean surface distance in mm)
    log_variance: Scalar  # of log_masd
    turn: Float[Array, "3"]  # corrective rotation vector, rad, vertebra frame
    shift: Float[Array, "3"]  # corrective translation, mm, vertebra frame
    coefficients: Float[Array, "15"]  # corrections of the coefficients, SD


@dataclasses.dataclass(frozen=True)
class SimilarityConfig:
    """Sizes of a similarity network. Crops are resized to `size` px; a convolutional stem makes
    tokens of `patch` px."""

    size: int
    patch: int
    width: int
    depth: int
    num_heads: int


SIMILARITY_PRESETS: dict[str, SimilarityConfig] = {
    "smoke": SimilarityConfig(32, 8, 32, 1, 2),
    "cpu60": SimilarityConfig(64, 8, 96, 4, 4),
    "h200_30": SimilarityConfig(128, 8, 256, 8, 8),
    "paper": SimilarityConfig(128, 8, 384, 12, 6),
}


def view_code(
    beam: Float[Array, "3"], right: Float[Array, "3"], distance_mm: Scalar
) -> Float[Array, "7"]:
    """Encode the geometry of a view: unit vectors along the beam and to the right of the image,
    both in the frame of the vertebra, and the distance from source to vertebra in metres."""
    return jnp.concatenate([beam, right, jnp.atleast_1d(distance_mm / 1000.0)])


class MultiViewSimilarity(nn.Module):
    """Transformer over the tokens of all views and one output token."""

    config: SimilarityConfig

    @nn.compact
    def __call__(self, views: ViewPair, valid: Bool[Array, " view"]) -> PredictedError:
        """Predict the error of a fit from its `valid` views, in any order. The other views may be
        NaN."""
        config = self.config
        # Attention multiplies the values of the other views by 0, which keeps NaN.
        views = jax.tree.map(
            lambda leaf: jnp.where(valid.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, 0.0), views
        )
        stem = nn.vmap(_Stem, variable_axes={"params": None}, split_rngs={"params": False})
        tokens = stem(config, name="stem")(views)
        per_view, width = tokens.shape[1:]
        gather = self.param("gather", nn.initializers.normal(0.02), (1, width))
        x = jnp.concatenate([gather, tokens.reshape(-1, width)])
        attended = jnp.concatenate([jnp.ones(1, bool), jnp.repeat(valid, per_view)])
        for i in range(config.depth):
            x = _Block(config.num_heads, name=f"block{i}")(x, attended)
        return _predicted_error(nn.LayerNorm(name="norm")(x[0]))


def _predicted_error(x: Float[Array, " d"]) -> PredictedError:
    out = nn.Dense(8 + NUM_MODES, name="head", kernel_init=nn.initializers.normal(0.01))(x)
    return PredictedError(
        log_masd=nn.softplus(out[0] + 1.0),
        log_variance=jnp.clip(out[1] - 2.0, *_LOG_VARIANCE),
        turn=0.1 * out[2:5],
        shift=3.0 * out[5:8],
        coefficients=out[8:],
    )


class _Stem(nn.Module):
    """Tokens of one view: convolutional patch embedding plus encodings of image position and view
    geometry."""

    config: SimilarityConfig

    @nn.compact
    def __call__(self, view: ViewPair) -> Tokens:
        config = self.config
        x = jnp.stack(
            [
                _standardize(view.observed),
                _standardize(view.rendered),
                view.silhouette,
                view.mask,
                _standardize(view.observed) * view.silhouette,
            ],
            axis=-1,
        )
        widths = [config.width // 4, config.width // 2, config.width]
        for i, width in enumerate(widths[: round(np.log2(config.patch))]):
            x = nn.gelu(nn.Conv(width, (3, 3), (2, 2), name=f"conv{i}")(x))
        x = nn.Conv(config.width, (1, 1), name="embed")(x)
        position = jnp.asarray(_positional_encoding(x.shape[0], x.shape[1], config.width), x.dtype)
        waves = 2.0 ** jnp.arange(4.0)
        angles = (view.code[:, None] * waves[None]).reshape(-1)
        features = jnp.concatenate([jnp.sin(angles), jnp.cos(angles), view.code])
        code = nn.Dense(config.width, name="code2")(
            nn.gelu(nn.Dense(config.width, name="code1")(features))
        )
        return x.reshape(-1, config.width) + position + code[None]


def _standardize(image: Image) -> Image:
    # The variance is limited before the root, whose derivative at 0 is infinite.
    return (image - jnp.mean(image)) / jnp.sqrt(jnp.maximum(jnp.var(image), 1e-12))


def _positional_encoding(height: int, width: int, channels: int) -> Float[np.ndarray, "token d"]:
    """Positional encoding: sines and cosines of row and column."""
    quarter = channels // 4
    waves = 1.0 / 100.0 ** (np.arange(quarter) / quarter)
    row, column = np.mgrid[:height, :width].reshape(2, -1, 1) * waves
    code = np.concatenate([np.sin(row), np.cos(row), np.sin(column), np.cos(column)], axis=1)
    return np.pad(code, ((0, 0), (0, channels - 4 * quarter)))


class _Block(nn.Module):
    """Pre-norm transformer block: masked attention, then an MLP."""

    num_heads: int

    @nn.compact
    def __call__(self, x: Tokens, attended: Bool[Array, " token"]) -> Tokens:
        width = x.shape[-1]
        normal = nn.LayerNorm(name="norm1")(x)
        attend = nn.MultiHeadDotProductAttention(self.num_heads, name="attention")
        x = x + attend(normal, normal, mask=attended[None, None, :])
        hidden = nn.gelu(nn.Dense(4 * width, name="fc1")(nn.LayerNorm(name="norm2")(x)))
        return x + nn.Dense(width, name="fc2")(hidden)
