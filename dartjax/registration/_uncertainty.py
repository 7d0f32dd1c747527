"""Uncertainty of a reconstruction, and the further view that reduces it most.

To first order the error of the fit is H^-1 g, with the curvature H of the objective and the noise
g of its gradient. Its covariance H^-1 G H^-1 (the sandwich estimator of Huber 1967) is valid for
any weights of the terms, and equals Laplace's approximation if every weight matches the noise of
its term. It does not cover a fit in the wrong minimum, wrong cameras, or shapes beyond the modes:
the inflation factor accounts for these and is calibrated on cases with ground truth.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dartjax import camera as cameras
from dartjax._types import Image, Scalar
from dartjax.camera import Camera
from dartjax.observations import Observations
from dartjax.registration._curvature import (
    MIN_SCORE,
    Agreement,
    Expansion,
    Matrix,
    Unknowns,
    expand,
    parameters_of,
)
from dartjax.registration._curvature import unknowns as flat_unknowns
from dartjax.registration._fit import FitOptions, Reconstruction, prepare
from dartjax.registration._objective import (
    Evidence,
    FitParameters,
    Surroundings,
    centroid,
    posed_vertices,
    render_views,
    with_region,
)
from dartjax.render import SplatOptions, two_compartment
from dartjax.ssm import ShapeModel, landmarks, paths

# Lower bound of gradient noise as a share of the curvature: noise-free images are not exact.
LEAST_NOISE = 1e-6
# Rendered phantoms with noise as the only error need 0.95 to 1.2 (docs/uncertainty.md).
INFLATION = 1.1
NORMAL_90 = 1.6449  # half of a 90 % interval, in standard deviations


class Uncertainty(eqx.Module):
    """Covariances of a reconstruction; lengths in mm, world axes.

    The unknowns are a turn about the vertebra's origin (rad), a shift (mm) and the shape
    coefficients (SD). `spectrum` holds the eigenvalues of the objective's curvature in ascending
    order, in the units of `FitParameters`; `noise_scale` is the mean ratio of gradient noise to
    curvature.
    """

    covariance: Matrix
    vertices: Float[Array, "vertex 3 3"]
    landmarks: Float[Array, "landmark 3 3"]
    paths: Float[Array, "side 6 6"]  # (left, right): entry x, y, z, target x, y, z
    spectrum: Float[Array, " unknown"]
    noise_scale: Scalar
    agreement: Agreement

    @property
    def vertex_std(self) -> Float[Array, " vertex"]:
        """Standard deviation of each vertex, root mean square of the three axes, mm."""
        return _per_axis(self.vertices)

    @property
    def landmark_std(self) -> Float[Array, " landmark"]:
        """Standard deviation of each landmark, root mean square of the three axes, mm."""
        return _per_axis(self.landmarks)

    @property
    def path_std(self) -> Float[Array, "side 2"]:
        """Standard deviation of the (entry, target) points, root mean square of the axes, mm."""
        diagonal = jnp.diagonal(self.paths, axis1=-2, axis2=-1)
        return jnp.sqrt(jnp.mean(diagonal.reshape(2, 2, 3), axis=-1))


def laplace(
    model: ShapeModel,
    observations: Observations,
    reconstruction: Reconstruction,
    options: FitOptions,
    around: Surroundings | None = None,
    *,
    inflation: float = INFLATION,
) -> Uncertainty:
    """Compute the covariance of pose and shape at a result of `fit`, and propagate it to vertices,
    landmarks and needle paths.

    Renders once at the last scale of `options`; `options` and `around` are those of the fit.
    All standard deviations are multiplied by `inflation`: take it from `calibrated_inflation`.
    A result that is not finite gives NaN. jit with `options` static; vmap over cases.
    """
    seen, splats = _evidence(model, observations, reconstruction, options, around)
    expansion, covariance = _expanded(model, reconstruction, options, seen, splats, inflation)
    return _propagated(model, reconstruction, expansion, covariance)


def sandwich(curvature: Matrix, noise: Matrix) -> Matrix:
    """Compute H^-1 G H^-1: the covariance of the minimum of an objective with curvature H whose
    gradient has covariance G. Directions without curvature get a very large variance."""
    inverse = jnp.linalg.inv(_regularised(curvature))
    noise = noise + LEAST_NOISE * curvature
    return inverse @ noise @ inverse.T


def _regularised(curvature: Matrix) -> Matrix:
    return curvature + 1e-7 * jnp.trace(curvature) / len(curvature) * jnp.eye(len(curvature))


def _evidence(
    model: ShapeModel,
    observations: Observations,
    reconstruction: Reconstruction,
    options: FitOptions,
    around: Surroundings | None,
) -> tuple[Evidence, SplatOptions]:
    """Make the observations at the last scale of the fit, with the region around its result."""
    parameters, scale = _zero_at(reconstruction), options.scales[-1]
    return prepare(model, reconstruction.pose, parameters, observations, scale, options, around)


def _expanded(
    model: ShapeModel,
    reconstruction: Reconstruction,
    options: FitOptions,
    seen: Evidence,
    splats: SplatOptions,
    inflation: float,
) -> tuple[Expansion, Matrix]:
    """Expand the objective at the result, and compute the covariance of its unknowns."""
    x, similarity = flat_unknowns(_zero_at(reconstruction)), options.similarity[-1]
    found = expand(x, model, reconstruction.pose, seen, similarity, options.weights, splats)
    return found, inflation**2 * sandwich(found.quadratic.curvature, found.noise)


def _zero_at(reconstruction: Reconstruction) -> FitParameters:
    """Make the parameters of a result relative to its own pose."""
    return FitParameters(jnp.zeros(3), jnp.zeros(3), reconstruction.coefficients)


def _propagated(
    model: ShapeModel, reconstruction: Reconstruction, expansion: Expansion, covariance: Matrix
) -> Uncertainty:
    """Propagate the covariance of the unknowns to vertices, landmarks and path points."""
    curvature = expansion.quadratic.curvature

    def vertices_at(x: Unknowns):
        return posed_vertices(model, reconstruction.pose, parameters_of(x))

    slope = jax.jacfwd(vertices_at)(flat_unknowns(_zero_at(reconstruction)))
    of_unknown = jnp.moveaxis(slope, -1, 0)
    # Landmarks and path points are linear in the vertices.
    of_landmarks = jnp.moveaxis(jax.vmap(lambda v: landmarks(model, v))(of_unknown), 0, -1)
    of_paths = jax.vmap(lambda v: paths(model, v))(of_unknown).reshape(len(covariance), 2, 6)
    units = _units(len(covariance))
    scale = jnp.trace(jnp.linalg.solve(_regularised(curvature), expansion.noise)) / len(covariance)
    return Uncertainty(
        covariance=covariance * units[:, None] * units[None],
        vertices=_spread(slope, covariance),
        landmarks=_spread(of_landmarks, covariance),
        paths=_spread(jnp.moveaxis(of_paths, 0, -1), covariance),
        spectrum=jnp.linalg.eigvalsh(curvature),
        noise_scale=scale,
        agreement=expansion.agreement,
    )


def _spread(slope: Float[Array, "n d unknown"], covariance: Matrix) -> Float[Array, "n d d"]:
    return jnp.einsum("nim,njm->nij", slope @ covariance, slope)


def _units(num_unknowns: int) -> Unknowns:
    turn, shift = FitParameters.ROTATION_UNIT, FitParameters.TRANSLATION_UNIT
    return jnp.ones(num_unknowns).at[:3].set(turn).at[3:6].set(shift)


def _per_axis(covariance: Float[Array, "n 3 3"]) -> Float[Array, " n"]:
    return jnp.sqrt(jnp.trace(covariance, axis1=-2, axis2=-1) / 3.0)


def normal_std(
    covariance: Float[Array, "n 3 3"], normals: Float[Array, "n 3"]
) -> Float[Array, " n"]:
    """Compute standard deviations along unit normals, mm: those of distances to the surface."""
    return jnp.sqrt(jnp.einsum("ni,nij,nj->n", normals, covariance, normals))


def interval_coverage(
    errors: Float[np.ndarray, "*shape"],
    standard_deviations: Float[np.ndarray, "*shape"],
) -> float:
    """Compute the share of errors (of one coordinate, mm) inside their 90 % intervals, on the
    host. A NaN in either array counts as outside."""
    return float(np.mean(np.abs(errors) <= NORMAL_90 * np.asarray(standard_deviations)))


def calibrated_inflation(
    errors: Float[np.ndarray, "*shape"],
    standard_deviations: Float[np.ndarray, "*shape"],
) -> float:
    """Compute the factor on the standard deviations with which 90 % of the errors lie inside their
    90 % intervals (host). Calibrate on cases with ground truth, and use the factor on other cases.

    Raises ValueError without a finite pair.
    """
    ratio = np.abs(errors) / (NORMAL_90 * np.asarray(standard_deviations))
    ratio = ratio[np.isfinite(ratio)]
    if not ratio.size:
        raise ValueError("no finite errors with standard deviations above 0: nothing to calibrate")
    return float(np.quantile(ratio, 0.9))


class NextView(eqx.Module):
    """Best further view: its index among the candidates, and for every candidate the expected
    standard deviation of the path points (rms of axes, mm)."""

    index: Int[Array, ""]
    path_std: Float[Array, " candidate"]
    path_std_now: Scalar


def best_next_view(
    model: ShapeModel,
    observations: Observations,
    reconstruction: Reconstruction,
    options: FitOptions,
    candidates: Camera,
    around: Surroundings | None = None,
    *,
    inflation: float = INFLATION,
) -> NextView:
    """Find the further view that reduces the trace of the path points' covariance most.

    `candidates` are full detectors with a leading axis; each is cropped around the vertebra. The
    information of a view is predicted from a rendering of the result in it: its curvature, with
    landmarks as uncertain as the detected ones, at the noise scale and the mean score of the
    existing views. Other anatomy in that view is not considered.
    """
    seen, splats = _evidence(model, observations, reconstruction, options, around)
    expansion, covariance = _expanded(model, reconstruction, options, seen, splats, inflation)
    now = _propagated(model, reconstruction, expansion, covariance)
    information = jnp.linalg.inv(covariance)
    noise_scale = inflation**2 * jnp.maximum(now.noise_scale, LEAST_NOISE)

    def with_view(view: Camera) -> Scalar:
        added = _added_curvature(model, reconstruction, options, seen, splats, expansion, view)
        smaller = jnp.linalg.inv(information + added / noise_scale)
        return _rms(_propagated(model, reconstruction, expansion, smaller).path_std)

    expected = jax.lax.map(with_view, candidates)
    best = jnp.argmin(jnp.where(jnp.isfinite(expected), expected, jnp.inf))
    return NextView(best, expected, _rms(now.path_std))


def _rms(x: Float[Array, "*shape"]) -> Scalar:
    return jnp.sqrt(jnp.mean(x**2))


def _added_curvature(
    model: ShapeModel,
    reconstruction: Reconstruction,
    options: FitOptions,
    seen: Evidence,
    splats: SplatOptions,
    expansion: Expansion,
    view: Camera,
) -> Matrix:
    """Compute the curvature that one more view would add if it showed exactly the render."""
    scale = options.scales[-1]
    middle = centroid(model, reconstruction.pose)
    width, pixels = options.crop_width_mm, scale.num_pixels
    crop = cameras.region_around(view, middle, width_mm=width, num_pixels=pixels)
    views = jax.tree.map(lambda leaf: leaf[None], crop)
    vertices = posed_vertices(model, reconstruction.pose, _zero_at(reconstruction))
    rendered = render_views(vertices, model, views, splats)
    known = jnp.isfinite(seen.landmark_sigma) & (seen.view_weight > 0.0)[:, None]
    sigma = jnp.sum(jnp.where(known, seen.landmark_sigma, 0.0)) / jnp.sum(known)
    sigma = jnp.where(jnp.any(known), sigma, jnp.inf)
    evidence = Evidence(
        cameras=views,
        images=jax.vmap(two_compartment)(rendered),
        masks=rendered.silhouette,
        exposed=jnp.ones_like(rendered.silhouette),
        weights=jnp.ones_like(rendered.silhouette),
        background=jnp.zeros_like(rendered.silhouette),
        landmarks=cameras.project(crop, landmarks(model, vertices))[None],
        landmark_sigma=jnp.full((1, seen.landmark_sigma.shape[1]), sigma),
        view_weight=jnp.max(seen.view_weight)[None],
        expected=seen.expected,
        shape=seen.shape,
    )
    evidence = with_region(evidence, rendered, options.region_dilation_mm * pixels / width)
    # Assume that the view agrees with its render as well as the existing views do. Score and
    # curvature are multiplied by each other, hence the square root.
    score = jnp.sum(seen.view_weight * expansion.agreement.scores)
    agreement = jnp.sqrt(jnp.clip(score, MIN_SCORE, 1.0))

    def similarity(rendered: Image, observed: Image, weights: Image) -> Scalar:
        return agreement * options.similarity[-1](rendered, observed, weights)

    x = flat_unknowns(_zero_at(reconstruction))
    terms = expand(x, model, reconstruction.pose, evidence, similarity, options.weights, splats)
    of_prior = jnp.diag(jnp.full(len(x), options.weights.prior).at[:6].set(0.0))
    return terms.quadratic.curvature - of_prior
