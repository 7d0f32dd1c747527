"""Failure detection: features of a reconstruction, its failure probability, and abstention.

The caller defines a failure, for example a mean surface distance above 2 mm. The model is a
logistic regression: it has few parameters, is well calibrated, and is fitted on other cases.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.stats import rankdata

from dartjax import camera as cameras
from dartjax._numerics import safe_norm
from dartjax._types import Scalar
from dartjax.camera import Camera
from dartjax.observations import Observations, without_ignored
from dartjax.registration._fit import Reconstruction
from dartjax.registration._landmark_fit import fit_landmarks
from dartjax.registration._landmark_residuals import centroid_of, exchangeable_residuals
from dartjax.registration._objective import posed_vertices, render_views
from dartjax.registration._triangulate import ray_angle, triangulate
from dartjax.registration._uncertainty import Uncertainty
from dartjax.render import SplatOptions
from dartjax.ssm import ShapeModel, landmarks, posed

_OUTLIER_SD = 3.0  # standard deviations beyond which a detected landmark is an outlier
_CLIPPED_SD = 6.0  # standard deviations at which residuals are clipped
_CLIPPED_MM = 20.0  # mm at which lengths are clipped, so that one feature cannot dominate
_SPLATS = SplatOptions(window=13, antialias=0.3)


class FailureFeatures(NamedTuple):
    """Quality features of one result of `fit`; every field is one number. The order of the fields
    is the order of the features in a fitted failure model."""

    image_loss: Scalar  # 1 - similarity, mean over views; no unit
    image_loss_worst: Scalar  # 1 - similarity of the worst view; no unit
    mask_loss: Scalar  # 1 - soft Dice, mean over views; 0 without masks; no unit
    mask_overlap_least: Scalar  # soft Dice of the worst view; 1 without masks; no unit
    landmark_residual: Scalar  # rms, in standard deviations
    landmark_residual_worst: Scalar  # largest, in standard deviations
    landmarks_unseen: Scalar  # share of landmark sightings missing in the valid views, 0 to 1
    coefficient_max: Scalar  # largest size of a shape coefficient, SD
    coefficient_rms: Scalar  # rms of the shape coefficients, SD
    curvature_condition: Scalar  # log10 of largest over least curvature of the objective
    curvature_least: Scalar  # log10 of the least curvature (units of `FitParameters`)
    noise_scale: Scalar  # log10 of gradient noise over curvature
    vertex_std_mm: Scalar  # mean standard deviation of the vertices, mm
    path_std_mm: Scalar  # standard deviation of the most uncertain path point, mm
    view_angle_sine: Scalar  # sine of the widest angle between two beams; 0 for one view
    num_views: Scalar  # count
    restart_spread_mm: Scalar  # rms spread of the vertices over restarts, mm; 0 without restarts
    sightings_disagreeing: Scalar  # share of all detected sightings beyond 3 SD, 0 to 1
    sightings_residual: Scalar  # rms of all detected sightings, each clipped at 6 SD; SD
    landmark_bias_mm: Scalar  # length of the mean residual of the worst view's sightings, mm
    landmark_gap_mm: Scalar  # rms distance between the rays of a landmark in several views, mm
    mask_gap_mm: Scalar  # distance between the rays through the centroids of the masks, mm
    mask_shift_mm: Scalar  # between centroids of mask and silhouette, worst view, mm
    landmark_fit_distance_mm: Scalar  # rms over vertices, to the fit of the landmarks alone, mm


FEATURE_NAMES: tuple[str, ...] = FailureFeatures._fields


def failure_features(
    model: ShapeModel,
    observations: Observations,
    reconstruction: Reconstruction,
    uncertainty: Uncertainty,
    *,
    detected: Observations | None = None,
    restarts: Reconstruction | None = None,
) -> FailureFeatures:
    """Compute the quality features of one result of `fit`, without the ground truth.

    `detected` are the observations with all detections, if the fit used only those that agree
    with its start. `restarts` are results of the same case from other starts (leading axis); give
    it for all cases of a failure model or for none. A result that is not finite gives
    features that are not finite. `failure_probability` takes `jnp.stack` of the result.
    """
    observations = without_ignored(observations)
    detected = observations if detected is None else without_ignored(detected)
    valid = observations.view_valid
    seen = jnp.isfinite(observations.landmark_sigma) & valid[:, None]
    agreement = uncertainty.agreement
    image_loss = 1.0 - agreement.scores
    mask_loss = 1.0 - agreement.overlaps
    squared = jnp.where(seen, agreement.residuals**2, 0.0)
    coefficients = reconstruction.coefficients
    lowest, highest = uncertainty.spectrum[0], uncertainty.spectrum[-1]
    disagreeing, residual, bias = _sightings(model, detected, reconstruction)
    landmark_gap, mask_gap = _gaps(observations)
    return FailureFeatures(
        image_loss=_mean(image_loss, valid),
        image_loss_worst=jnp.max(jnp.where(valid, image_loss, -jnp.inf)),
        mask_loss=_mean(mask_loss, valid),
        mask_overlap_least=jnp.min(jnp.where(valid, reconstruction.mask_agreement, 1.0)),
        landmark_residual=jnp.sqrt(_mean(squared, seen) / 2.0),
        landmark_residual_worst=jnp.sqrt(jnp.max(squared)),
        landmarks_unseen=1.0 - jnp.sum(seen) / (seen.shape[1] * jnp.maximum(jnp.sum(valid), 1)),
        coefficient_max=jnp.max(jnp.abs(coefficients)),
        coefficient_rms=jnp.sqrt(jnp.mean(coefficients**2)),
        curvature_condition=_log10(highest) - _log10(lowest),
        curvature_least=_log10(lowest),
        noise_scale=_log10(uncertainty.noise_scale),
        vertex_std_mm=_clipped(jnp.mean(uncertainty.vertex_std)),
        path_std_mm=_clipped(jnp.max(uncertainty.path_std)),
        view_angle_sine=jnp.sin(ray_angle(observations.cameras, valid.astype(image_loss.dtype))),
        num_views=jnp.sum(valid).astype(image_loss.dtype),
        restart_spread_mm=_restart_spread(model, restarts),
        sightings_disagreeing=disagreeing,
        sightings_residual=residual,
        landmark_bias_mm=bias,
        landmark_gap_mm=landmark_gap,
        mask_gap_mm=mask_gap,
        mask_shift_mm=_mask_shift(model, observations, reconstruction),
        landmark_fit_distance_mm=_landmark_fit_distance(model, observations, reconstruction),
    )


def _sightings(
    model: ShapeModel, detected: Observations, reconstruction: Reconstruction
) -> tuple[Scalar, Scalar, Scalar]:
    """Compute the share of outliers among the detected landmarks of all views, their rms residual,
    and the bias of the worst view. Left/right swaps in a view are undone first, as in the fit."""
    points = landmarks(model, posed(model, reconstruction.pose, reconstruction.coefficients))
    seen = jnp.isfinite(detected.landmark_sigma) & detected.view_valid[:, None]
    sigma = jnp.where(seen, detected.landmark_sigma, jnp.inf)

    def one_view(view: Camera, pixels: Float[Array, "n 2"], sigma: Float[Array, " n"]):
        return exchangeable_residuals(view, points, pixels, sigma, jnp.inf)[0]

    over_sigma = jax.vmap(one_view)(detected.cameras, detected.landmarks, sigma)
    lengths = safe_norm(over_sigma)
    sigma = jnp.where(seen, sigma, 1.0)
    residuals = over_sigma * sigma[..., None]
    weights = jnp.where(seen & (lengths < _OUTLIER_SD), 1.0 / sigma**2, 0.0)
    total = jnp.sum(weights, axis=1)
    mean = jnp.sum(jnp.where(weights > 0.0, weights, 0.0)[..., None] * residuals, axis=1)
    bias = safe_norm(mean / jnp.maximum(total, 1e-6)[:, None])
    return (
        _mean((lengths > _OUTLIER_SD).astype(sigma.dtype), seen),
        jnp.sqrt(_mean(jnp.minimum(lengths, _CLIPPED_SD) ** 2, seen) / 2.0),
        _clipped(jnp.max(jnp.where(detected.view_valid, bias, 0.0))),
    )


def _gaps(observations: Observations) -> tuple[Scalar, Scalar]:
    """Compute how far the rays of landmarks, and the rays of mask centroids, pass each other: rms
    in-plane distance to the triangulated point, mm; 0 if only one view saw them. Wrong cameras,
    or views that show different bones, make it large."""
    seen = jnp.isfinite(observations.landmark_sigma) & observations.view_valid[:, None]
    points = triangulate(
        observations.cameras,
        observations.landmarks,
        jnp.where(seen, observations.landmark_sigma, jnp.inf),
    )
    common = points.num_views >= 2
    of_landmarks = jnp.sqrt(_mean(jnp.minimum(points.residual_mm, _CLIPPED_MM) ** 2, common))
    centers, known = _mask_centroids(observations)
    sigma = jnp.where(known, 1.0, jnp.inf)[:, None]
    middle = triangulate(observations.cameras, centers[:, None], sigma)
    of_masks = jnp.where(jnp.sum(known) >= 2, middle.residual_mm[0], 0.0)
    return of_landmarks, _clipped(of_masks)


def _mask_centroids(
    observations: Observations,
) -> tuple[Float[Array, "view 2"], Bool[Array, " view"]]:
    """Compute the centroid of the mask in each view (px), and whether there is a mask."""
    centers, masked = jax.vmap(centroid_of)(observations.masks)
    return centers, observations.view_valid & masked


def _mask_shift(
    model: ShapeModel, observations: Observations, reconstruction: Reconstruction
) -> Scalar:
    """Compute the distance between the centroids of mask and rendered silhouette in the worst
    view, mm."""
    vertices = posed(model, reconstruction.pose, reconstruction.coefficients)
    rendered = render_views(vertices, model, observations.cameras, _SPLATS).silhouette
    centers, known = _mask_centroids(observations)
    rendered_centers, _ = jax.vmap(centroid_of)(rendered)
    views, middle = observations.cameras, jnp.mean(vertices, axis=0)
    depths = jax.vmap(lambda view: cameras.depth(view, middle[None])[0])(views)
    shift = safe_norm((centers - rendered_centers) / views.focal_length) * depths
    return _clipped(jnp.max(jnp.where(known, shift, 0.0)))


def _landmark_fit_distance(
    model: ShapeModel, observations: Observations, reconstruction: Reconstruction
) -> Scalar:
    """Compute the rms distance of the vertices to those of a fit of the landmarks alone, started
    at the result, mm. 0 without landmarks."""
    vertices = posed(model, reconstruction.pose, reconstruction.coefficients)
    landmark_fit = fit_landmarks(model, observations, reconstruction.pose)
    landmark_vertices = posed_vertices(model, reconstruction.pose, landmark_fit)
    seen = jnp.isfinite(observations.landmark_sigma) & observations.view_valid[:, None]
    distance = jnp.sqrt(jnp.mean(jnp.sum((vertices - landmark_vertices) ** 2, axis=1)))
    return _clipped(jnp.where(jnp.any(seen), distance, 0.0))


def _mean(values: Float[Array, "*shape"], counted: Bool[Array, "*shape"]) -> Scalar:
    return jnp.sum(jnp.where(counted, values, 0.0)) / jnp.maximum(jnp.sum(counted), 1)


def _clipped(length: Scalar) -> Scalar:
    return jnp.minimum(length, _CLIPPED_MM)


def _log10(x: Scalar) -> Scalar:
    return jnp.log10(jnp.maximum(x, 1e-12))


def _restart_spread(model: ShapeModel, restarts: Reconstruction | None) -> Scalar:
    if restarts is None:
        return jnp.zeros(())
    vertices = jax.vmap(lambda r: posed(model, r.pose, r.coefficients))(restarts)
    return jnp.sqrt(jnp.mean(jnp.var(vertices, axis=0)))


class FailureModel(eqx.Module):
    """Logistic regression on standardised features (plain arrays)."""

    mean: Float[Array, " feature"]
    scale: Float[Array, " feature"]
    weights: Float[Array, " feature"]
    bias: Scalar


def fit_failure_model(
    features: Float[Array, "case feature"],
    failed: Bool[Array, " case"],
    *,
    ridge: float | Scalar = 1.0,
    num_steps: int = 30,
) -> FailureModel:
    """Fit a logistic regression by maximum likelihood with the penalty ridge |weights|^2 / 2 on
    the standardised features (none on the bias), by damped Newton steps.

    Cases with a feature that is not finite are skipped: their probability is always 1. Constant
    features get weight 0. With a single class a weak prior keeps the bias finite, and the
    probabilities carry no information: do not report an AUROC then.
    """
    known = jnp.all(jnp.isfinite(features), axis=1)
    counts = known.astype(features.dtype)
    total = jnp.maximum(jnp.sum(counts), 1.0)
    filled = jnp.where(known[:, None], features, 0.0)
    mean = jnp.sum(filled, axis=0) / total
    spread = jnp.sqrt(jnp.sum(counts[:, None] * (filled - mean[None]) ** 2, axis=0) / total)
    scale = jnp.where(spread > 1e-6 * (1.0 + jnp.abs(mean)), spread, jnp.inf)
    columns = jnp.where(known[:, None], (filled - mean[None]) / scale[None], 0.0)
    design = jnp.concatenate([columns, jnp.ones_like(columns[:, :1])], axis=1)
    penalty = jnp.full(design.shape[1], ridge, features.dtype).at[-1].set(1e-3)
    target = failed.astype(features.dtype)

    def loss(x: Float[Array, " weight"]) -> Scalar:
        logit = design @ x
        likelihood = jnp.sum(counts * (jax.nn.softplus(logit) - target * logit))
        return likelihood + 0.5 * jnp.sum(penalty * x**2)

    def step(x: Float[Array, " weight"], _):
        chance = jax.nn.sigmoid(design @ x)
        certainty = counts * chance * (1.0 - chance)
        hessian = design.T @ (design * certainty[:, None]) + jnp.diag(penalty)
        delta = -jnp.linalg.solve(hessian, jax.grad(loss)(x))
        lengths = 0.5 ** jnp.arange(8.0)
        losses = jax.vmap(lambda length: loss(x + length * delta))(lengths)
        best = jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))
        return jnp.where(losses[best] < loss(x), x + lengths[best] * delta, x), None

    x, _ = jax.lax.scan(step, jnp.zeros(design.shape[1], features.dtype), length=num_steps)
    return FailureModel(mean, scale, x[:-1], x[-1])


def failure_probability(model: FailureModel, features: Float[Array, " feature"]) -> Scalar:
    """Compute the probability that a result failed; 1 if a feature is not finite."""
    standard = (features - model.mean) / model.scale
    known = jnp.all(jnp.isfinite(features))
    logit = jnp.sum(model.weights * jnp.where(known, standard, 0.0)) + model.bias
    return jnp.where(known, jax.nn.sigmoid(logit), 1.0)


def auroc(probability: Float[np.ndarray, " case"], failed: Bool[np.ndarray, " case"]) -> float:
    """Compute the area under the ROC curve (Mann and Whitney): the chance that a failed case has a
    higher probability than a successful one, ties counting half. NaN if all cases failed or none
    did. Runs on the host."""
    failed = np.asarray(failed, bool)
    positive, negative = int(failed.sum()), int((~failed).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(np.asarray(probability))
    above = ranks[failed].sum() - positive * (positive + 1) / 2.0
    return float(above / (positive * negative))


class RiskCoverage(eqx.Module):
    """Risk-coverage curve: element k is the risk of the k + 1 cases with the lowest failure
    probabilities, a share `coverage` of all cases."""

    coverage: Float[np.ndarray, " case"]
    risk: Float[np.ndarray, " case"]  # mean error, or share of failures, of the cases kept
    threshold: Float[np.ndarray, " case"]  # failure probability of the last case kept

    @property
    def area(self) -> float:
        """Mean risk over all coverages (AURC): lower is better."""
        return float(np.mean(self.risk))

    def risk_at(self, coverage: float) -> float:
        """Return the risk if at least this share of the cases is kept."""
        keep = int(np.ceil(coverage * len(self.risk) - 1e-9))
        return float(self.risk[max(keep, 1) - 1])


def risk_coverage(
    probability: Float[np.ndarray, " case"], error: Float[np.ndarray, " case"]
) -> RiskCoverage:
    """Compute the curve of mean error against coverage (Geifman and El-Yaniv 2017), on the host.

    `error` is a loss per case: mm, or 1 for a failure and 0 otherwise. Cases of equal probability
    count with their mean error, so their order does not matter. Raises ValueError without cases.
    """
    probability, error = np.asarray(probability, float), np.asarray(error, float)
    if not len(probability):
        raise ValueError("no cases: a risk-coverage curve needs at least one")
    values, group, counts = np.unique(probability, return_inverse=True, return_counts=True)
    expected = (np.bincount(group, error) / counts)[group]
    order = np.argsort(probability, kind="stable")
    kept = np.arange(1, len(order) + 1)
    return RiskCoverage(kept / len(order), np.cumsum(expected[order]) / kept, values[group[order]])


def abstention_threshold(
    probability: Float[np.ndarray, " case"],
    error: Float[np.ndarray, " case"],
    *,
    max_risk: float,
) -> float:
    """Find the highest failure probability to accept so that the cases kept have a mean error of
    at most `max_risk`; -1 (keep none) if no coverage reaches it. Choose it on other cases than
    those reported. Runs on the host."""
    curve = risk_coverage(probability, error)
    # Equal probabilities are kept or dropped together.
    last = np.append(curve.threshold[1:] > curve.threshold[:-1], True)
    good = last & (curve.risk <= max_risk)
    return float(curve.threshold[good][-1]) if good.any() else -1.0


def abstain(
    reconstruction: Reconstruction, probability: Scalar, threshold: float
) -> Bool[Array, ""]:
    """Return whether to abstain: the failure probability is above the threshold or NaN, or the
    fit is not finite."""
    return ~(probability <= threshold) | (reconstruction.status == 1)
