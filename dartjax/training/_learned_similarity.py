"""Use of the multi-view similarity network: as a term of a fit, as a quality check of its result,
and for a start in one step."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dartjax._numerics import safe_norm
from dartjax._types import Scalar
from dartjax.models import MultiViewSimilarity, PredictedError
from dartjax.observations import Observations, without_ignored
from dartjax.registration import (
    Comparison,
    MultiViewScore,
    Reconstruction,
    landmark_residuals,
)
from dartjax.ssm import ShapeModel, landmarks, posed
from dartjax.training._similarity import Fit, moved_fit, pairs_of, predicted_step, view_pairs

MOST_ERROR_MM = 4.0  # highest accepted predicted error, one predicted standard deviation added
MOST_LANDMARK_RMS = 2.5  # standard deviations
_LARGE_ERROR, _OFF_LANDMARKS = 5, 6  # see STATUS_MEANING


def learned_score(net: MultiViewSimilarity, params: PyTree) -> MultiViewScore:
    """Make the score for `FitOptions.multiview`: minus the predicted log(1 + MASD). Use one object
    for all fits: compiled programs are cached per object."""

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
    """Predict the error of a fit of one vertebra. The crops must have the width of the training
    crops (110 mm). Pure; vmap over cases."""
    seen = without_ignored(observations)
    pairs = view_pairs(model, fit, seen.cameras, seen.images, seen.masks, net.config.size)
    return net.apply({"params": params}, pairs, seen.view_valid)  # pyright: ignore


def one_shot_fit(
    net: MultiViewSimilarity,
    params: PyTree,
    model: ShapeModel,
    observations: Observations,
    fit: Fit,
) -> Fit:
    """Move a fit by the step that the auxiliary heads predict. Its coefficients refer to the shape
    models that the network was trained with."""
    found = predicted_error(net, params, model, observations, fit)
    return moved_fit(fit, predicted_step(found, fit))


def flag_unreliable(
    net: MultiViewSimilarity,
    params: PyTree,
    model: ShapeModel,
    observations: Observations,
    found: Reconstruction,
) -> Reconstruction:
    """Flag the result of a fit with a large predicted error (status 5) or distant landmarks (6).

    The limits are 4 mm of predicted MASD plus one standard deviation, and a landmark residual of
    2.5 standard deviations. The landmark test guards against results at which the network is wrong,
    because the descent minimises its prediction. A result with a status other than 0 keeps it.
    """
    fit = Fit(found.pose, found.coefficients)
    predicted = predicted_error(net, params, model, observations, fit)
    upper_mm = jnp.expm1(predicted.log_masd + jnp.exp(0.5 * predicted.log_variance))
    points = landmarks(model, posed(model, found.pose, found.coefficients))
    # Each test is of what is good, so that NaN fails it.
    close = landmark_rms(points, observations) <= MOST_LANDMARK_RMS
    status = jnp.where(close, 0, _OFF_LANDMARKS)
    status = jnp.where(upper_mm <= MOST_ERROR_MM, status, _LARGE_ERROR).astype(jnp.int32)
    return dataclasses.replace(found, status=jnp.where(found.status == 0, status, found.status))


def landmark_rms(points: Float[Array, "landmark 3"], observations: Observations) -> Scalar:
    """Compute the root mean square per coordinate of the landmark residuals over their standard
    deviations; 0 if no landmark was seen."""
    observations = without_ignored(observations)
    count = 2.0 * jnp.sum(jnp.isfinite(observations.landmark_sigma))
    residuals = landmark_residuals(points, observations).reshape(-1)
    return safe_norm(residuals) / jnp.sqrt(jnp.maximum(count, 1.0))
