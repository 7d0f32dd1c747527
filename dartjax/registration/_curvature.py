"""Quadratic expansion of the objective: value, gradient, Gauss-Newton curvature, gradient noise.

Every term is half a sum of squares, so its Gauss-Newton curvature is positive semidefinite:

- Correlations: 1 - NCC = |a - b|^2 / 2 for the normalised images a (rendered), b (observed).
  The curvature J_a' J_a does not contain b: it is the Hessian of the image's dissimilarity with
  itself, so one definition serves every similarity that is a plain callable. If b contains
  a only in part, b = s a + rest, the expected Hessian is s J_a' J_a with the score s.
- Silhouette: 1 - soft Dice = |p - q|^2 / (|p|^2 + |q|^2), with the denominator held constant.
- Landmarks: sum huber(r), as squares reweighted by the slope of the Huber function.
- Prior: |b|^2 / 2.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from dartjax import transforms
from dartjax._numerics import safe_norm
from dartjax._types import Image, Scalar
from dartjax.registration._objective import (
    HUBER_DELTA,
    Evidence,
    FitParameters,
    ObjectiveWeights,
    Similarity,
    landmark_residuals,
    posed_vertices,
    render_views,
    soft_dice,
    zero_parameters,
)
from dartjax.render import SplatOptions, two_compartment
from dartjax.ssm import ShapeModel, landmarks

# Lower bound of the score as a factor of the curvature: lower scores carry little information.
MIN_SCORE = 0.2
# Blocks per side of a crop; their residuals count as independent. A block is 14 mm of 110 mm wide.
NUM_BLOCKS = 8

Unknowns = Float[Array, " unknown"]
Matrix = Float[Array, "unknown unknown"]


class Quadratic(eqx.Module):
    """Quadratic model loss + gradient . d + d . curvature . d / 2 of a step d, in the units of
    `FitParameters`."""

    loss: Scalar
    gradient: Unknowns
    curvature: Matrix


class Agreement(eqx.Module):
    """Agreement of each view with a result. Values of views that are not valid are arbitrary."""

    scores: Float[Array, " view"]  # similarity
    overlaps: Float[Array, " view"]  # soft Dice at the scale; 1 where the mask is unknown
    residuals: Float[Array, "view landmark"]  # of landmarks over sigma; 0 where not seen


class Expansion(eqx.Module):
    """Quadratic expansion of the objective, noise of its gradient, and agreement of the views."""

    quadratic: Quadratic
    noise: Matrix  # covariance of the gradient
    agreement: Agreement


class _Linearised(eqx.Module):
    images: Float[Array, "view 2 h w"]  # line integral and silhouette
    image_tangents: Float[Array, "unknown view 2 h w"]
    residuals: Float[Array, "view landmark 2"]
    residual_tangents: Float[Array, "unknown view landmark 2"]


def unknowns(parameters: FitParameters) -> Unknowns:
    """Flatten fit parameters: rotation, translation, coefficients."""
    return ravel_pytree(parameters)[0]


def parameters_of(x: Unknowns) -> FitParameters:
    """Convert a flat vector to fit parameters: the inverse of `unknowns`."""
    return ravel_pytree(zero_parameters(len(x) - 6))[1](x)


def expand(
    x: Unknowns,
    model: ShapeModel,
    start: transforms.SE3,
    evidence: Evidence,
    similarity: Similarity,
    weights: ObjectiveWeights,
    options: SplatOptions,
) -> Expansion:
    """Expand `objective` at x: value, gradient, Gauss-Newton curvature and gradient noise.

    Renders every view once, with one tangent for each unknown. The noise of the image terms is
    estimated from their residuals: the sum over the blocks of a crop of g g', where g is the
    block's share of the gradient (a sandwich estimate, robust to neighbouring bones and to
    correlation within a block). Landmarks contribute their stated variance, scaled up if
    their residuals are larger, and the prior contributes that of coefficients ~ N(0, I).
    """
    near = _linearise(x, model, start, evidence, options)
    of_images, shares, scores, overlaps = _image_terms(near, evidence, similarity, weights)
    of_landmarks, landmark_noise = _landmark_term(near, evidence, weights.landmarks)
    of_prior, prior_noise = _prior_term(x, evidence.shape, weights.prior)
    quadratic = jax.tree.map(lambda *parts: sum(parts), of_images, of_landmarks, of_prior)
    noise = shares @ shares.T + landmark_noise + prior_noise
    lengths = safe_norm(near.residuals)
    return Expansion(quadratic, noise, Agreement(scores, overlaps, lengths))


def _linearise(
    x: Unknowns,
    model: ShapeModel,
    start: transforms.SE3,
    evidence: Evidence,
    options: SplatOptions,
) -> _Linearised:
    def seen(x: Unknowns):
        vertices = posed_vertices(model, start, parameters_of(x))
        rendered = render_views(vertices, model, evidence.cameras, options)
        drr = jax.vmap(two_compartment)(rendered) + evidence.background
        images = jnp.stack([drr, evidence.exposed * rendered.silhouette], axis=1)
        return images, landmark_residuals(landmarks(model, vertices), evidence)

    (images, residuals), pull = jax.vjp(seen, x)
    # Splats define a reverse pass only. It is linear: its transpose is the forward derivative.
    push = jax.linear_transpose(pull, (images, residuals))
    along = jnp.eye(len(x), dtype=x.dtype)
    ((image_tangents, residual_tangents),) = jax.vmap(lambda d: push((d,)))(along)
    return _Linearised(images, image_tangents, residuals, residual_tangents)


def _image_terms(
    near: _Linearised, evidence: Evidence, similarity: Similarity, weights: ObjectiveWeights
):
    """Expand similarity and silhouette: their quadratic, each block's share of the gradient
    (unknown, view and block), and the scores and overlaps per view."""

    def one_view(images, tangents, observed, mask, region):
        known = jnp.max(mask) > 0.0

        def loss(images):
            score = similarity(images[0], observed, region)
            overlap = jnp.where(known, soft_dice(images[1], mask), 1.0)
            total = weights.similarity * (1.0 - score) + weights.silhouette * (1.0 - overlap)
            return total, (score, overlap)

        (value, (score, overlap)), slope = jax.value_and_grad(loss, has_aux=True)(images)
        shares = block_sums(jnp.sum(slope[None] * tangents, axis=1))
        own = self_curvature(similarity, images[0], region, tangents[:, 0])
        curvature = weights.similarity * jnp.clip(score, MIN_SCORE, 1.0) * own
        own = overlap_curvature(images[1], mask, tangents[:, 1])
        curvature += jnp.where(known, weights.silhouette, 0.0) * own
        return (value, shares, curvature), (score, overlap)

    terms, agreement = jax.vmap(one_view, in_axes=(0, 1, 0, 0, 0))(
        near.images, near.image_tangents, evidence.images, evidence.masks, evidence.weights
    )
    value, shares, curvature = (_weighted(term, evidence.view_weight) for term in terms)
    shares = jnp.moveaxis(shares, 0, 1).reshape(shares.shape[1], -1)
    quadratic = Quadratic(jnp.sum(value), jnp.sum(shares, axis=1), jnp.sum(curvature, axis=0))
    return quadratic, shares, *agreement


def _weighted(term: Float[Array, "view *rest"], weight: Float[Array, " view"]):
    # A view that is not valid may contain NaN, which multiplying by 0 would keep.
    weight = weight.reshape(-1, *(1,) * (term.ndim - 1))
    return jnp.where(weight > 0.0, weight * term, 0.0)


def self_curvature(
    similarity: Similarity, image: Image, weights: Image, tangents: Float[Array, "unknown h w"]
) -> Matrix:
    """Compute the Hessian of 1 - similarity(image, image) in its first argument, along tangents of
    the image. For correlations this is the Gauss-Newton curvature. Negative eigenvalues, which
    come from the regularisation of a similarity, are set to 0."""

    def slope(own: Image) -> Image:
        return -jax.grad(similarity)(own, image, weights)

    products = jax.vmap(lambda tangent: jax.jvp(slope, (image,), (tangent,))[1])(tangents)
    hessian = jnp.einsum("ihw,jhw->ij", tangents, products)
    values, vectors = jnp.linalg.eigh(0.5 * (hessian + hessian.T))
    return (vectors * jnp.maximum(values, 0.0)[None]) @ vectors.T


def overlap_curvature(
    silhouette: Image, mask: Image, tangents: Float[Array, "unknown h w"]
) -> Matrix:
    """Compute the Gauss-Newton curvature of 1 - soft Dice along tangents of the silhouette."""
    size = jnp.sum(silhouette**2) + jnp.sum(mask**2) + 1e-6
    return 2.0 / size * jnp.einsum("ihw,jhw->ij", tangents, tangents)


def block_sums(images: Float[Array, "unknown h w"]) -> Float[Array, "unknown block"]:
    """Sum the pixels of each of NUM_BLOCKS x NUM_BLOCKS blocks of an image, row by row. Sides
    that NUM_BLOCKS does not divide are padded with 0."""
    count, height, width = images.shape
    down, across = -height % NUM_BLOCKS, -width % NUM_BLOCKS
    images = jnp.pad(images, ((0, 0), (0, down), (0, across)))
    blocks = images.reshape(count, NUM_BLOCKS, -1, NUM_BLOCKS, (width + across) // NUM_BLOCKS)
    return jnp.sum(blocks, axis=(2, 4)).reshape(count, -1)


def _landmark_term(
    near: _Linearised, evidence: Evidence, weight: float
) -> tuple[Quadratic, Matrix]:
    valid = (evidence.view_weight > 0.0)[:, None, None]
    residuals = jnp.where(valid, near.residuals, 0.0)
    tangents = jnp.where(valid[None], near.residual_tangents, 0.0)
    root = jnp.sqrt(1.0 + jnp.sum(residuals**2, axis=-1, keepdims=True) / HUBER_DELTA**2)
    loss = weight * HUBER_DELTA**2 * jnp.sum(root - 1.0)
    gradient = weight * jnp.einsum("nkld,kld->n", tangents, residuals / root)
    curvature = weight * jnp.einsum("nkld,mkld->nm", tangents, tangents / root[None])
    seen = jnp.isfinite(evidence.landmark_sigma)[..., None] & valid
    spread = jnp.sum((residuals / root) ** 2) / jnp.maximum(2.0 * jnp.sum(seen), 1.0)
    noise = (
        weight**2
        * jnp.maximum(spread, 1.0)
        * jnp.einsum("nkld,mkld->nm", tangents / root[None], tangents / root[None])
    )
    return Quadratic(loss, gradient, curvature), noise


def _prior_term(
    x: Unknowns, expected: Float[Array, "*mode"], weight: float
) -> tuple[Quadratic, Matrix]:
    coefficients = x.at[:6].set(0.0).at[6:].add(-expected)
    shape = jnp.diag(jnp.ones_like(x).at[:6].set(0.0))
    loss = 0.5 * weight * jnp.sum(coefficients**2)
    return Quadratic(loss, weight * coefficients, weight * shape), weight**2 * shape
