"""How far a reconstruction may be off, and which further view would help most.

The errors of the fit's minimum are to first order H^-1 g: H the curvature of the objective,
g the noise of its gradient. Their covariance H^-1 G H^-1 (the sandwich of Huber 1967) holds
whatever the weights of the terms, and is Laplace's when each term is weighted as its noise asks.
It knows nothing of a fit in the wrong minimum, of wrong cameras, or of shape no mode can reach:
the inflation stands for these and is to be calibrated on cases with a known truth.
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
from dartjax.registration._curvature import unknowns as in_a_row
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

# Gradient noise never below this share of the curvature: noise-free images are not exact.
LEAST_NOISE = 1e-6
# Rendered phantoms, with noise but nothing else wrong, ask for 0.95 to 1.2.
INFLATION = 1.1
NORMAL_90 = 1.6449  # half of a 90 % interval, in standard deviations


class Uncertainty(eqx.Module):
    """Covariances of a reconstruction; lengths in mm, world axes.

    The unknowns are a turn about the vertebra's origin (rad), a shift (mm) and the shape
    coefficients (SD). `spectrum` holds the eigenvalues of the objective's curvature, rising, in
    the units of `FitParameters`; `noise_scale` is the mean ratio of gradient noise to curvature.
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
    """Covariance of pose and shape at a result of `fit`, carried to vertices, landmarks and
    needle paths.

    From one rendering at the last scale of `options`; `options` and `around` as in the fit.
    All standard deviations are multiplied by `inflation`: take it from `calibrated_inflation`.
    A result that is not finite gives NaN. jit with `options` static; vmap over cases.
    """
    seen, splats = _evidence(model, observations, reconstruction, options, around)
    expansion, covariance = _expanded(model, reconstruction, options, seen, splats, inflation)
    return _carried(model, reconstruction, expansion, covariance)


def sandwich(curvature: Matrix, noise: Matrix) -> Matrix:
    """H^-1 G H^-1: covariance of the minimum of an objective with curvature H whose gradient
    has covariance G. Directions without any curvature get a very large variance."""
    inverse = jnp.linalg.inv(_held(curvature))
    noise = noise + LEAST_NOISE * curvature
    return inverse @ noise @ inverse.T


def _held(curvature: Matrix) -> Matrix:
    return curvature + 1e-7 * jnp.trace(curvature) / len(curvature) * jnp.eye(len(curvature))


def _evidence(
    model: ShapeModel,
    observations: Observations,
    reconstruction: Reconstruction,
    options: FitOptions,
    around: Surroundings | None,
) -> tuple[Evidence, SplatOptions]:
    """The observations at the last scale of the fit, the region drawn around its result."""
    here, scale = _zero_at(reconstruction), options.scales[-1]
    return prepare(model, reconstruction.pose, here, observations, scale, options, around)


def _expanded(
    model: ShapeModel,
    reconstruction: Reconstruction,
    options: FitOptions,
    seen: Evidence,
    splats: SplatOptions,
    inflation: float,
) -> tuple[Expansion, Matrix]:
    """The objective about the result, and the covariance of its unknowns."""
    x, similarity = in_a_row(_zero_at(reconstruction)), options.similarity[-1]
    found = expand(x, model, reconstruction.pose, seen, similarity, options.weights, splats)
    return found, inflation**2 * sandwich(found.quadratic.curvature, found.noise)


def _zero_at(reconstruction: Reconstruction) -> FitParameters:
    """The result as its own start."""
    return FitParameters(jnp.zeros(3), jnp.zeros(3), reconstruction.coefficients)


def _carried(
    model: ShapeModel, reconstruction: Reconstruction, expansion: Expansion, covariance: Matrix
) -> Uncertainty:
    curvature = expansion.quadratic.curvature

    def vertices_at(x: Unknowns):
        return posed_vertices(model, reconstruction.pose, parameters_of(x))

    slope = jax.jacfwd(vertices_at)(in_a_row(_zero_at(reconstruction)))
    of_unknown = jnp.moveaxis(slope, -1, 0)
    # The carried points are linear in the vertices.
    of_landmarks = jnp.moveaxis(jax.vmap(lambda v: landmarks(model, v))(of_unknown), 0, -1)
    of_paths = jax.vmap(lambda v: paths(model, v))(of_unknown).reshape(len(covariance), 2, 6)
    units = _units(len(covariance))
    scale = jnp.trace(jnp.linalg.solve(_held(curvature), expansion.noise)) / len(covariance)
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
    """Standard deviation along unit normals, mm: that of a distance to the surface."""
    return jnp.sqrt(jnp.einsum("ni,nij,nj->n", normals, covariance, normals))


def interval_coverage(
    errors: Float[np.ndarray, "*shape"],
    standard_deviations: Float[np.ndarray, "*shape"],
) -> float:
    """Share of errors (of one coordinate, mm) inside their 90 % intervals, on the host. A NaN
    on either side counts as outside."""
    return float(np.mean(np.abs(errors) <= NORMAL_90 * np.asarray(standard_deviations)))


def calibrated_inflation(
    errors: Float[np.ndarray, "*shape"],
    standard_deviations: Float[np.ndarray, "*shape"],
) -> float:
    """The factor on the standard deviations with which 90 % of the errors of cases of known
    truth lie inside their 90 % intervals (host). Use it on other cases than these.

    Raises ValueError without a finite pair.
    """
    ratio = np.abs(errors) / (NORMAL_90 * np.asarray(standard_deviations))
    ratio = ratio[np.isfinite(ratio)]
    if not ratio.size:
        raise ValueError("no finite errors with standard deviations above 0: nothing to calibrate")
    return float(np.quantile(ratio, 0.9))


class NextView(eqx.Module):
    """Which further view would help most: its index among the candidates, and for every
    candidate the expected standard deviation of the path points (rms of axes, mm)."""

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
    """The view whose taking shrinks the trace of the path points' covariance most.

    `candidates` are full detectors with a leading axis; each is cropped around the
    vertebra. What a view would add is foreseen from a rendering of the result in it: its
    curvature, with landmarks as uncertain as those already seen, at the noise scale and the
    mean score of the views there are. Nothing is assumed about what else it would show.
    """
    seen, splats = _evidence(model, observations, reconstruction, options, around)
    expansion, covariance = _expanded(model, reconstruction, options, seen, splats, inflation)
    now = _carried(model, reconstruction, expansion, covariance)
    information = jnp.linalg.inv(covariance)
    noise_scale = inflation**2 * jnp.maximum(now.noise_scale, LEAST_NOISE)

    def with_view(view: Camera) -> Scalar:
        foreseen = _foreseen(model, reconstruction, options, seen, splats, expansion, view)
        smaller = jnp.linalg.inv(information + foreseen / noise_scale)
        return _rms(_carried(model, reconstruction, expansion, smaller).path_std)

    expected = jax.lax.map(with_view, candidates)
    best = jnp.argmin(jnp.where(jnp.isfinite(expected), expected, jnp.inf))
    return NextView(best, expected, _rms(now.path_std))


def _rms(x: Float[Array, "*shape"]) -> Scalar:
    return jnp.sqrt(jnp.mean(x**2))


def _foreseen(
    model: ShapeModel,
    reconstruction: Reconstruction,
    options: FitOptions,
    seen: Evidence,
    splats: SplatOptions,
    expansion: Expansion,
    view: Camera,
) -> Matrix:
    """Curvature that one more view would add, as if it showed what is rendered."""
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
        neighbours=seen.neighbours,
        shape=seen.shape,
    )
    evidence = with_region(evidence, rendered, options.region_dilation_mm * pixels / width)
    # The view will agree with its rendering no better than the others do. Score and curvature
    # are multiplied with each other, hence the root.
    score = jnp.sum(seen.view_weight * expansion.agreement.scores)
    agreement = jnp.sqrt(jnp.clip(score, MIN_SCORE, 1.0))

    def similarity(rendered: Image, observed: Image, weights: Image) -> Scalar:
        return agreement * options.similarity[-1](rendered, observed, weights)

    x = in_a_row(_zero_at(reconstruction))
    terms = expand(x, model, reconstruction.pose, evidence, similarity, options.weights, splats)
    of_prior = jnp.diag(jnp.full(len(x), options.weights.prior).at[:6].set(0.0))
    return terms.quadratic.curvature - of_prior
