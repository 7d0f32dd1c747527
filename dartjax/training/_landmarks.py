"""Losses of the landmark network, for one crop (`vmap` over a batch), and its errors."""

import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from dartjax._numerics import safe_norm
from dartjax._types import Scalar
from dartjax.models import LANDMARK_PAIRS, FoundLandmarks
from dartjax.training._detection import mask_loss

_SPREAD = 1.0  # standard deviation of a heatmap's target, cells
_WEIGHTS = {"place": 1.0, "heat": 0.5, "swapped": 0.2, "mask": 1.0}


def landmark_loss(
    found: FoundLandmarks,
    landmarks: Float[Array, "10 2"],
    visible: Bool[Array, " 10"],
    mask: Float[Array, "h w"],
) -> tuple[Scalar, dict[str, Scalar]]:
    """Compute the loss of one crop, and its terms.

    `place`: negative log likelihood sqrt(3) r / s + 2 log s of the distances r under the isotropic
    Laplace distribution with deviation s per axis. `heat`: cross-entropy of the heatmaps with
    Gaussians. `swapped`: whether the partner's place is nearer. `mask`: cross-entropy and Dice.
    Only visible landmarks count.
    """
    away = safe_norm(found.landmarks - landmarks)
    sigma = jnp.exp(found.log_sigma)
    cell = mask.shape[0] / found.heat.shape[-1]
    cells = found.mask.shape
    pairs = jnp.array(LANDMARK_PAIRS)
    terms = {
        "place": _mean(math.sqrt(3.0) * away / sigma + 2.0 * found.log_sigma, visible),
        "heat": _mean(_heat_loss(found.heat, landmarks / cell), visible),
        "swapped": _mean(
            optax.sigmoid_binary_cross_entropy(found.swapped, _are_swapped(found, landmarks)),
            jnp.all(visible[pairs], axis=1),
        ),
        "mask": mask_loss(found.mask, jax.image.resize(mask, cells, "linear")),
    }
    return jnp.sum(jnp.stack([_WEIGHTS[name] * value for name, value in terms.items()])), terms


def _heat_loss(heat: Float[Array, "10 m m"], places: Float[Array, "10 2"]) -> Float[Array, " 10"]:
    """Cross-entropy of each heatmap with a Gaussian around its place (cells)."""
    middle = jnp.arange(heat.shape[-1]) + 0.5
    off_u = (middle[None] - places[:, :1]) ** 2
    off_v = (middle[None] - places[:, 1:]) ** 2
    away = off_v[:, :, None] + off_u[:, None, :]
    target = jax.nn.softmax((-0.5 * away / _SPREAD**2).reshape(len(heat), -1))
    return -jnp.sum(target * jax.nn.log_softmax(heat.reshape(len(heat), -1)), axis=-1)


def _are_swapped(found: FoundLandmarks, true: Float[Array, "10 2"]) -> Float[Array, " 3"]:
    """Return 1 for a pair whose places would be nearer to the true ones if exchanged."""
    pairs = jnp.array(LANDMARK_PAIRS)
    own = jnp.sum((found.landmarks[pairs] - true[pairs]) ** 2, axis=(1, 2))
    other = jnp.sum((found.landmarks[pairs] - true[pairs[:, ::-1]]) ** 2, axis=(1, 2))
    return jax.lax.stop_gradient(other < own).astype(true.dtype)


def _mean(values: Float[Array, " n"], counted: Bool[Array, " n"]) -> Scalar:
    """Mean of the values that count; 0 if there are none."""
    total = jnp.sum(jnp.where(counted, values, 0.0))
    return total / jnp.maximum(jnp.sum(counted), 1)
