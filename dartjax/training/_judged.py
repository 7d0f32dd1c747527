"""The multi-view similarity at work: a term of a fit, its judge, and a start in one step."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dartjax._types import Scalar
from dartjax.models import MultiViewSimilarity, PredictedError
from dartjax.observations import Observations
from dartjax.registration import (
    Comparison,
    MultiViewScore,
    Reconstruction,
    landmark_residuals,
)
from dartjax.ssm import ShapeModel, landmarks, posed
from dartjax.training._similarity import Fit, moved_fit, pairs_of, predicted_step, view_pairs

MOST_ERROR_MM = 4.0  # that the network may expect of an answer, its own doubt added
MOST_LANDMARK_RMS = 2.5  # standard deviations
_DOUBTED, _OFF_LANDMARKS = 5, 6  # see STATUS_MEANING


def learned_score(net: MultiViewSimilarity, params: PyTree) -> MultiViewScore:
    """Minus the predicted log(1 + MASD), for `FitOptions.multiview`. Use one object for all fits:
    what is compiled is kept by it."""

    def score(compared: Comparison) -> Scalar:
        pairs = pairs_of(compared, net.config.size)
        found: PredictedError = net.apply({"params": params}, pairs, compared.valid)  # pyright: ignore
        return -found.log_masd

    return score


def predicted_error(
    net: MultiViewSimilarity,
    params: PyTree,
    model: ShapeModel,
    observations: Observations,
    fit: Fit,
) -> PredictedError:
    """What the network says of a fit of one vertebra. The crops must show as many mm as those it
    was trained on (110). Pure; vmap over cases."""
    seen = observations
    pairs = view_pairs(model, fit, seen.cameras, seen.images, seen.masks, net.config.size)
    return net.apply({"params": params}, pairs, seen.view_valid)  # pyright: ignore


def one_shot_fit(
    net: MultiViewSimilarity,
    params: PyTree,
    model: ShapeModel,
    observations: Observations,
    fit: Fit,
) -> Fit:
    """The fit after the step that the auxiliary heads ask for. The coefficients they speak of are
    those of the shape models the network was trained with."""
    found = predicted_error(net, params, model, observations, fit)
    return moved_fit(fit, predicted_step(found, fit))


def flag_doubtful(
    net: MultiViewSimilarity,
    params: PyTree,
    model: ShapeModel,
    observations: Observations,
    found: Reconstruction,
) -> Reconstruction:
    """The result of a fit, flagged if the network expects it to be wrong by more than 4 mm (its
    standard deviation added) or if it has left the landmarks: a descent may find an answer that
    fools the network. What is flagged already, such as by its masks, stays as it is."""
    judged = predicted_error(net, params, model, observations, Fit(found.pose, found.coefficients))
    highest = jnp.expm1(judged.log_masd + jnp.exp(0.5 * judged.log_variance))
    points = landmarks(model, posed(model, found.pose, found.coefficients))
    status = jnp.where(landmark_rms(points, observations) > MOST_LANDMARK_RMS, _OFF_LANDMARKS, 0)
    status = jnp.where(highest > MOST_ERROR_MM, _DOUBTED, status).astype(jnp.int32)
    return dataclasses.replace(found, status=jnp.where(found.status == 0, status, found.status))


def landmark_rms(points: Float[Array, "landmark 3"], observations: Observations) -> Scalar:
    """Root mean square per coordinate of the landmarks' residuals over their standard deviations;
    0 if none was seen."""
    seen = jnp.isfinite(observations.landmark_sigma) & observations.view_valid[:, None]
    squared = jnp.where(seen[..., None], landmark_residuals(points, observations) ** 2, 0.0)
    return jnp.sqrt(jnp.sum(squared) / jnp.maximum(2.0 * jnp.sum(seen), 1.0))
