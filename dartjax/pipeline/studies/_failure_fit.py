"""Fit of the failure model of the quality assessment: cross-validated, calibrated intervals."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from dartjax import data
from dartjax.pipeline._assess import ALL_FEATURE_NAMES, failure_probabilities, fill_scene_features
from dartjax.pipeline.studies._stress import FailureTrials
from dartjax.registration import abstention_threshold, calibrated_inflation, fit_failure_model

RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)
# Features with a weight. With all 35, a model of a few hundred results predicts other synthetic
# subjects better but a real CT worse: it learns the levels of the synthetic anatomy.
USED_FEATURES = (
    *("image_loss", "mask_loss", "landmark_residual", "sightings_residual"),
    *("landmark_fit_distance_mm", "neighbour_distance_mm", "neighbour_angle_deg"),
    "scene_mask_shift_mm",
)

_fit = jax.jit(fit_failure_model)


def cross_validate_failure_model(
    features: Float[np.ndarray, "case feature"],
    failed: Bool[np.ndarray, " case"],
    subject: np.ndarray,
) -> tuple[float, Float[np.ndarray, " case"]]:
    """Choose the ridge of `RIDGES` with the best likelihood on held-out subjects; also return its
    failure probabilities there."""
    best, best_loss = (RIDGES[0], np.full(len(failed), np.nan)), np.inf
    for ridge in RIDGES:
        probability = np.full(len(failed), np.nan)
        for name in np.unique(subject):
            held_out = subject == name
            # The fit skips rows that are not finite, so all folds have the same shape.
            stored = _logistic(np.where(held_out[:, None], np.nan, features), failed, ridge)
            probability[held_out] = failure_probabilities(features[held_out], stored)
        clipped = np.clip(probability, 1e-4, 1.0 - 1e-4)
        loss = -float(np.mean(np.where(failed, np.log(clipped), np.log1p(-clipped))))
        if loss < best_loss:
            best, best_loss = (ridge, probability), loss
    return best


def fit_calibrated_failure_model(
    trials: FailureTrials,
    probability: Float[np.ndarray, " case"],
    *,
    ridge: float,
    max_risk: float,
) -> data.StoredFailureModel:
    """Fit the failure model to all subjects, with an empty card.

    The threshold (for a share of failures up to `max_risk` among the accepted estimates) and the
    inflation factors come from the cross-validated `probability`, so that they hold for unseen
    subjects. The intervals are calibrated separately for estimates up to the threshold and beyond
    it.
    """
    threshold = max(
        abstention_threshold(probability, trials.failed.astype(float), max_risk=max_risk), 0.0
    )
    kinds = [probability <= threshold, probability > threshold]
    # If one kind is empty, calibrate it on all estimates.
    kinds = [kind if kind.any() else np.ones_like(kind) for kind in kinds]
    return _logistic(trials.features, trials.failed, ridge)._replace(
        threshold=threshold,
        inflation=_inflations(trials.vertex_error, trials.vertex_std, kinds),
        path_inflation=_inflations(trials.path_error, trials.path_std, kinds),
    )


def _logistic(
    features: Float[np.ndarray, "case feature"], failed: Bool[np.ndarray, " case"], ridge: float
) -> data.StoredFailureModel:
    """Fit the regression to the finite rows, with the weight 0 for features that are not used;
    threshold and inflation factors are placeholders."""
    mean = np.nanmean(features, axis=0)
    used = np.isin(ALL_FEATURE_NAMES, USED_FEATURES)
    rows = np.where(used | ~np.isfinite(features), fill_scene_features(features, mean), mean)
    model = _fit(jnp.asarray(rows, jnp.float32), jnp.asarray(failed), ridge=ridge)
    mean, scale, weights = map(np.asarray, (model.mean, model.scale, model.weights))
    return data.StoredFailureModel(
        ALL_FEATURE_NAMES, mean, scale, weights, float(model.bias), 1.0, np.ones(2), np.ones(2), {}
    )


def _inflations(
    errors: Float[np.ndarray, "case *rest"],
    deviations: Float[np.ndarray, "case *rest"],
    kinds: Sequence[Bool[np.ndarray, " case"]],
) -> Float[np.ndarray, " kind"]:
    return np.array([calibrated_inflation(errors[kind], deviations[kind]) for kind in kinds])
