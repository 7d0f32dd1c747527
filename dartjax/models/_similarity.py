"""Multi-view similarity: how far a rendered vertebra is from the one in the X-rays.

Spine-DART (arXiv 2512.05803, section 4.3) learns a metric that looks at all views at once and
predicts the mean surface distance. Here the tokens of every view are coded by the geometry
of its camera, not by its number: any views, in any order, as many as there are.
"""

import dataclasses

import equinox as eqx
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._types import Image, Scalar

NUM_MODES = 15
_LOG_VARIANCE = (-5.0, 3.0)
Tokens = Float[Array, "token d"]


class ViewPair(eqx.Module):
    """One view: the radiograph's crop, what the current fit looks like in it, and where it is
    taken from in the frame of the vertebra that is fitted (see `view_code`). A leading axis
    for K views."""

    observed: Float[Array, "*view h w"]
    mask: Float[Array, "*view h w"]  # of the vertebra in the radiograph; all 0 = unknown
    rendered: Float[Array, "*view h w"]
    silhouette: Float[Array, "*view h w"]
    code: Float[Array, "*view 7"]


class PredictedError(eqx.Module):
    """What the network says of a fit."""

    log_masd: Scalar  # log(1 + mean surface distance in mm)
    log_variance: Scalar  # of log_masd
    turn: Float[Array, "3"]  # rotation vector that leads to the truth, rad, vertebra frame
    shift: Float[Array, "3"]  # mm, vertebra frame
    coefficients: Float[Array, "15"]  # to be added, SD


@dataclasses.dataclass(frozen=True)
class SimilarityConfig:
    """Crops are cut to `size` px, tokens are `patch` px wide after a stem of convolutions."""

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
    """Where a view is taken from: unit vectors along the beam and to the right of the image, both
    in the frame of the vertebra, and the distance from source to vertebra in metres."""
    return jnp.concatenate([beam, right, jnp.atleast_1d(distance_mm / 1000.0)])


class MultiViewSimilarity(nn.Module):
    """Transformer over the tokens of all views and one that gathers the answer."""

    config: SimilarityConfig

    @nn.compact
    def __call__(self, views: ViewPair, valid: Bool[Array, " view"]) -> PredictedError:
        """Views that are not `valid` are not looked at. The order of the views does not matter."""
        own = self.config
        stem = nn.vmap(_Stem, variable_axes={"params": None}, split_rngs={"params": False})
        tokens = stem(own, name="stem")(views)
        per_view, width = tokens.shape[1:]
        gather = self.param("gather", nn.initializers.normal(0.02), (1, width))
        x = jnp.concatenate([gather, tokens.reshape(-1, width)])
        seen = jnp.concatenate([jnp.ones(1, bool), jnp.repeat(valid, per_view)])
        for i in range(own.depth):
            x = _Block(own.num_heads, name=f"block{i}")(x, seen)
        return _answer(nn.LayerNorm(name="norm")(x[0]))


def _answer(x: Float[Array, " d"]) -> PredictedError:
    out = nn.Dense(8 + NUM_MODES, name="head", kernel_init=nn.initializers.normal(0.01))(x)
    return PredictedError(
        log_masd=nn.softplus(out[0] + 1.0),
        log_variance=jnp.clip(out[1] - 2.0, *_LOG_VARIANCE),
        turn=0.1 * out[2:5],
        shift=3.0 * out[5:8],
        coefficients=out[8:],
    )


class _Stem(nn.Module):
    """One view as tokens: convolutions down to the patches, the place in the image and the
    geometry of the view added."""

    config: SimilarityConfig

    @nn.compact
    def __call__(self, view: ViewPair) -> Tokens:
        own = self.config
        x = jnp.stack(
            [
                _standard(view.observed),
                _standard(view.rendered),
                view.silhouette,
                view.mask,
                _standard(view.observed) * view.silhouette,
            ],
            axis=-1,
        )
        widths = [own.width // 4, own.width // 2, own.width]
        for i, width in enumerate(widths[: round(np.log2(own.patch))]):
            x = nn.gelu(nn.Conv(width, (3, 3), (2, 2), name=f"conv{i}")(x))
        x = nn.Conv(own.width, (1, 1), name="embed")(x)
        places = jnp.asarray(_places(x.shape[0], x.shape[1], own.width), x.dtype)
        waves = 2.0 ** jnp.arange(4.0)
        angles = (view.code[:, None] * waves[None]).reshape(-1)
        features = jnp.concatenate([jnp.sin(angles), jnp.cos(angles), view.code])
        code = nn.Dense(own.width, name="code2")(
            nn.gelu(nn.Dense(own.width, name="code1")(features))
        )
        return x.reshape(-1, own.width) + places + code[None]


def _standard(image: Image) -> Image:
    return (image - jnp.mean(image)) / jnp.maximum(jnp.std(image), 1e-6)


def _places(height: int, width: int, channels: int) -> Float[np.ndarray, "token d"]:
    """Sines and cosines of row and column."""
    quarter = channels // 4
    waves = 1.0 / 100.0 ** (np.arange(quarter) / quarter)
    row, column = np.mgrid[:height, :width].reshape(2, -1, 1) * waves
    code = np.concatenate([np.sin(row), np.cos(row), np.sin(column), np.cos(column)], axis=1)
    return np.pad(code, ((0, 0), (0, channels - 4 * quarter)))


class _Block(nn.Module):
    """Attention among the tokens that are seen, then an MLP; norms first, residuals around."""

    num_heads: int

    @nn.compact
    def __call__(self, x: Tokens, seen: Bool[Array, " token"]) -> Tokens:
        width = x.shape[-1]
        normal = nn.LayerNorm(name="norm1")(x)
        attend = nn.MultiHeadDotProductAttention(self.num_heads, name="attention")
        x = x + attend(normal, normal, mask=seen[None, None, :])
        hidden = nn.gelu(nn.Dense(4 * width, name="fc1")(nn.LayerNorm(name="norm2")(x)))
        return x + nn.Dense(width, name="fc2")(hidden)
