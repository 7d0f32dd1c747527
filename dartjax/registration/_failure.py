"""Whether to believe a reconstruction: features of a result, the probability that it failed,
and when to abstain.

A failure is what the caller says it is, say a mean surface distance above 2 mm. The model is a
logistic regression: few numbers, well calibrated, and fitted on the results of other cases.
"""

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
from dartjax.observations import Observations
from dartjax.registration._fit import Reconstruction
from dartjax.registration._landmark_fit import fit_landmarks
from dartjax.registration._landmark_residuals import centroid_of, exchangeable_residuals
from dartjax.registration._objective import posed_vertices, render_views
from dartjax.registration._triangulate import ray_angle, triangulate
from dartjax.registration._uncertainty import Uncertainty
from dartjax.render import SplatOptions
from dartjax.ssm import ShapeModel, landmarks, posed

FEATURE_NAMES: tuple[str, ...] = (
    "image_loss",  # 1 - similarity, mean over views
    "image_loss_worst",  # of the worst view
    "mask_loss",  # 1 - soft Dice, mean over views; 0 without masks
    "mask_overlap_least",  # soft Dice of the worst view; 1 without masks
    "landmark_residual",  # rms, in standard deviations
    "landmark_residual_worst",  # largest, in standard deviations
    "landmarks_unseen",  # share of landmark sightings missing in the valid views
    "coefficient_max",  # |z|_inf, SD
    "coefficient_rms",  # SD
    "curvature_condition",  # log10 of largest over least curvature
    "curvature_least",  # log10 of the least curvature
    "noise_scale",  # log10 of gradient noise over curvature
    "vertex_std_mm",  # mean over vertices
    "path_std_mm",  # of the most uncertain path point
    "view_angle_sine",  # sine of the widest angle between two beams; 0 for one view
    "num_views",
    "restart_spread_mm",  # of the vertices over restarts; 0 without restarts
    "sightings_disagreeing",  # share of all detected sightings beyond 3 standard deviations
    "sightings_residual",  # rms of all detected sightings, each held at 6 standard deviations
    "landmark_bias_mm",  # of the worst view: length of the mean residual of its sightings
    "landmark_gap_mm",  # rms by which the rays of a landmark seen in several views miss each other
    "mask_gap_mm",  # by which the rays through the centroids of the masks miss each other
    "mask_shift_mm",  # between the centroids of mask and silhouette, worst view
    "landmark_fit_distance_mm",  # rms over vertices, to the fit of the landmarks alone
)
_DISAGREES = 3.0  # standard deviations
_HELD = 6.0  # standard deviations: a gross error says no more than this
_GROSS_MM = 20.0  # a length beyond it says no more than this, and would hide all others
_SPLATS = SplatOptions(window=13, antialias=0.3)


def failure_features(
    model: ShapeModel,
    observations: Observations,
    reconstruction: Reconstruction,
    uncertainty: Uncertainty,
    *,
    detected: Observations | None = None,
    restarts: Reconstruction | None = None,
) -> Float[Array, " feature"]:
    """The numbers named in `FEATURE_NAMES`, for one result of `fit`; none needs the truth.

    `detected` are the observations with all that was detected, where the fit was given only what
    agreed with its start. `restarts` are results of the same case from other starts (leading
    axis); leave it out for all cases of a model or for none. A result that is not finite gives
    features that are not.
    """
    detected = observations if detected is None else detected
    valid = observations.view_valid
    seen = jnp.isfinite(observations.landmark_sigma) & valid[:, None]
    agreement = uncertainty.agreement
    image_loss = 1.0 - agreement.scores
    mask_loss = 1.0 - agreement.overlaps
    squared = jnp.where(seen, agreement.residuals**2, 0.0)
    coefficients = reconstruction.coefficients
    lowest, highest = uncertainty.spectrum[0], uncertainty.spectrum[-1]
    return jnp.stack(
        [
            _mean(image_loss, valid),
            jnp.max(jnp.where(valid, image_loss, -jnp.inf)),
            _mean(mask_loss, valid),
            jnp.min(jnp.where(valid, reconstruction.mask_agreement, 1.0)),
            jnp.sqrt(_mean(squared, seen) / 2.0),
            jnp.sqrt(jnp.max(squared)),
            1.0 - jnp.sum(seen) / (seen.shape[1] * jnp.maximum(jnp.sum(valid), 1)),
            jnp.max(jnp.abs(coefficients)),
            jnp.sqrt(jnp.mean(coefficients**2)),
            _log10(highest) - _log10(lowest),
            _log10(lowest),
            _log10(uncertainty.noise_scale),
            _at_most(jnp.mean(uncertainty.vertex_std)),
            _at_most(jnp.max(uncertainty.path_std)),
            jnp.sin(ray_angle(observations.cameras, valid.astype(image_loss.dtype))),
            jnp.sum(valid).astype(image_loss.dtype),
            _restart_spread(model, restarts),
            *_sightings(model, detected, reconstruction),
            *_gaps(observations),
            _mask_shift(model, observations, reconstruction),
            _landmark_fit_distance(model, observations, reconstruction),
        ]
    )


def _sightings(
    model: ShapeModel, detected: Observations, reconstruction: Reconstruction
) -> tuple[Scalar, Scalar, Scalar]:
    """Share of sightings that disagree with the result, their rms, and the worst view's bias.
    Sides that were exchanged in a view are put right first: the fit has done so as well."""
    points = landmarks(model, posed(model, reconstruction.pose, reconstruction.coefficients))
    seen = jnp.isfinite(detected.landmark_sigma) & detected.view_valid[:, None]
    sigma = jnp.where(seen, detected.landmark_sigma, jnp.inf)

    def one_view(view: Camera, pixels: Float[Array, "n 2"], sigma: Float[Array, " n"]):
        return exchangeable_residuals(view, points, pixels, sigma, jnp.inf)[0]

    over_sigma = jax.vmap(one_view)(detected.cameras, detected.landmarks, sigma)
    lengths = safe_norm(over_sigma)
    sigma = jnp.where(seen, sigma, 1.0)
    residuals = over_sigma * sigma[..., None]
    weights = jnp.where(seen & (lengths < _DISAGREES), 1.0 / sigma**2, 0.0)
    total = jnp.sum(weights, axis=1)
    mean = jnp.sum(jnp.where(weights > 0.0, weights, 0.0)[..., None] * residuals, axis=1)
    bias = safe_norm(mean / jnp.maximum(total, 1e-6)[:, None])
    return (
        _mean((lengths > _DISAGREES).astype(sigma.dtype), seen),
        jnp.sqrt(_mean(jnp.minimum(lengths, _HELD) ** 2, seen) / 2.0),
        _at_most(jnp.max(jnp.where(detected.view_valid, bias, 0.0))),
    )


def _gaps(observations: Observations) -> tuple[Scalar, Scalar]:
    """By how much the rays of landmarks, and those of the masks' centroids, miss each other:
    rms in-plane distance of the views from the point between them, mm; 0 where only one view
    saw them. Cameras that are wrong, and views that show different bones, make it large."""
    seen = jnp.isfinite(observations.landmark_sigma) & observations.view_valid[:, None]
    points = triangulate(
        observations.cameras,
        observations.landmarks,
        jnp.where(seen, observations.landmark_sigma, jnp.inf),
    )
    common = points.num_views >= 2
    of_landmarks = jnp.sqrt(_mean(jnp.minimum(points.residual_mm, _GROSS_MM) ** 2, common))
    centers, known = _mask_centroids(observations)
    sigma = jnp.where(known, 1.0, jnp.inf)[:, None]
    middle = triangulate(observations.cameras, centers[:, None], sigma)
    of_masks = jnp.where(jnp.sum(known) >= 2, middle.residual_mm[0], 0.0)
    return of_landmarks, _at_most(of_masks)


def _mask_centroids(
    observations: Observations,
) -> tuple[Float[Array, "view 2"], Bool[Array, " view"]]:
    """Centroid of the mask in each view (px), and whether there is a mask."""
    centers, masked = jax.vmap(centroid_of)(observations.masks)
    return centers, observations.view_valid & masked


def _mask_shift(
    model: ShapeModel, observations: Observations, reconstruction: Reconstruction
) -> Scalar:
    """Distance between the centroids of mask and rendered silhouette in the worst view, mm."""
    vertices = posed(model, reconstruction.pose, reconstruction.coefficients)
    rendered = render_views(vertices, model, observations.cameras, _SPLATS).silhouette
    centers, known = _mask_centroids(observations)
    own, _ = jax.vmap(centroid_of)(rendered)
    views, middle = observations.cameras, jnp.mean(vertices, axis=0)
    depths = jax.vmap(lambda view: cameras.depth(view, middle[None])[0])(views)
    shift = safe_norm((centers - own) / views.focal_length) * depths
    return _at_most(jnp.max(jnp.where(known, shift, 0.0)))


def _landmark_fit_distance(
    model: ShapeModel, observations: Observations, reconstruction: Reconstruction
) -> Scalar:
    """A second opinion: rms distance of the vertices to those of the fit of the landmarks alone,
    started at the result, mm. 0 without landmarks."""
    own = posed(model, reconstruction.pose, reconstruction.coefficients)
    other = fit_landmarks(model, observations, reconstruction.pose)
    there = posed_vertices(model, reconstruction.pose, other)
    seen = jnp.isfinite(observations.landmark_sigma) & observations.view_valid[:, None]
    distance = jnp.sqrt(jnp.mean(jnp.sum((own - there) ** 2, axis=1)))
    return _at_most(jnp.where(jnp.any(seen), distance, 0.0))


def _mean(values: Float[Array, "*shape"], counted: Bool[Array, "*shape"]) -> Scalar:
    return jnp.sum(jnp.where(counted, values, 0.0)) / jnp.maximum(jnp.sum(counted), 1)


def _at_most(length: Scalar) -> Scalar:
    return jnp.minimum(length, _GROSS_MM)


def _log10(x: Scalar) -> Scalar:
    return jnp.log10(jnp.maximum(x, 1e-12))


def _restart_spread(model: ShapeModel, restarts: Reconstruction | None) -> Scalar:
    if restarts is None:
        return jnp.zeros(())
    vertices = jax.vmap(lambda r: posed(model, r.pose, r.coefficients))(restarts)
    return jnp.sqrt(jnp.mean(jnp.var(vertices, axis=0)))


class FailureModel(eqx.Module):
    """Logistic regression on standardised features: plain arrays, saved as any others."""

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
    """Maximum likelihood with a penalty ridge |weights|^2 / 2 on the standardised features
    (the bias is free), by damped Newton steps.

    Cases with a feature that is not finite are left out, for their probability is 1 without a
    model. Features of one value get weight 0. With a single class the bias stays near that
    class (held by a weak prior), and the probabilities say nothing: report no AUROC then.
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
        best = jnp.argmin(losses)
        return jnp.where(losses[best] < loss(x), x + lengths[best] * delta, x), None

    x, _ = jax.lax.scan(step, jnp.zeros(design.shape[1], features.dtype), length=num_steps)
    return FailureModel(mean, scale, x[:-1], x[-1])


def failure_probability(model: FailureModel, features: Float[Array, " feature"]) -> Scalar:
    """Probability that a result failed; 1 where a feature is not finite."""
    standard = (features - model.mean) / model.scale
    known = jnp.all(jnp.isfinite(features))
    logit = jnp.sum(model.weights * jnp.where(known, standard, 0.0)) + model.bias
    return jnp.where(known, jax.nn.sigmoid(logit), 1.0)


def auroc(probability: Float[np.ndarray, " case"], failed: Bool[np.ndarray, " case"]) -> float:
    """Chance that a failed case has a higher probability than one that succeeded, ties half
    (area under the ROC curve, Mann and Whitney). NaN without both kinds. Host."""
    failed = np.asarray(failed, bool)
    positive, negative = int(failed.sum()), int((~failed).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(np.asarray(probability))
    above = ranks[failed].sum() - positive * (positive + 1) / 2.0
    return float(above / (positive * negative))


class RiskCoverage(eqx.Module):
    """Risk of the cases kept when those with the highest probability of failure are dropped:
    element k keeps the k + 1 most trusted cases, a share `coverage` of all."""

    coverage: Float[np.ndarray, " case"]
    risk: Float[np.ndarray, " case"]  # mean error, or share of failures, of the kept
    threshold: Float[np.ndarray, " case"]  # probability of the last one kept

    @property
    def area(self) -> float:
        """Mean risk over all coverages (AURC): lower is better."""
        return float(np.mean(self.risk))

    def risk_at(self, coverage: float) -> float:
        """Risk when at least this share of the cases is kept."""
        keep = int(np.ceil(coverage * len(self.risk) - 1e-9))
        return float(self.risk[max(keep, 1) - 1])


def risk_coverage(
    probability: Float[np.ndarray, " case"], error: Float[np.ndarray, " case"]
) -> RiskCoverage:
    """The curve of mean error against coverage (Geifman and El-Yaniv 2017), on the host.

    `error` is a loss per case: mm, or 1 for a failure and 0 else. Cases of equal probability
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
    """The highest probability of failure to accept so that the cases kept have a mean error
    of at most `max_risk`; -1 (keep none) when no coverage does. Choose it on other cases
    than those reported. Host."""
    curve = risk_coverage(probability, error)
    # Equal probabilities are kept or dropped together.
    last = np.append(curve.threshold[1:] > curve.threshold[:-1], True)
    good = last & (curve.risk <= max_risk)
    return float(curve.threshold[good][-1]) if good.any() else -1.0


def abstain(
    reconstruction: Reconstruction, probability: Scalar, threshold: float
) -> Bool[Array, ""]:
    """Whether to withhold a result: its probability of failure is above the threshold or not a
    number, or the fit itself is not finite."""
    return ~(probability <= threshold) | (reconstruction.status == 1)
