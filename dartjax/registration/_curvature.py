"""The objective near a point: value, gradient, Gauss-Newton curvature, noise of the gradient.

Every term is half a sum of squares, which gives a curvature that is never negative:

- Correlations: 1 - NCC = |a - b|^2 / 2 for the normalised images a (rendered), b (observed).
  Its curvature J_a' J_a does not contain b: it is the Hessian of the image's dissimilarity with
  itself, and so one definition serves every similarity that is a plain callable. Where b is
  a only in part, b = s a + rest, the expected Hessian is s J_a' J_a with s the score.
- Silhouette: 1 - soft Dice = |p - q|^2 / (|p|^2 + |q|^2), the denominator held.
- Landmarks: sum huber(r), as squares reweighted by the slope of huber.
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

# A score below this says little about how much of the image is the vertebra.
MIN_SCORE = 0.2
# Blocks per side of a crop whose residuals count as independent: 14 mm of 110.
NUM_BLOCKS = 8

Unknowns = Float[Array, " unknown"]
Matrix = Float[Array, "unknown unknown"]


class Quadratic(eqx.Module):
    """loss + gradient . d + d . curvature . d / 2, in the units of `FitParameters`."""

    loss: Scalar
    gradient: Unknowns
    curvature: Matrix


class Agreement(eqx.Module):
    """How well each view agrees with a result. A view switched off holds any number."""

    scores: Float[Array, " view"]  # similarity
    overlaps: Float[Array, " view"]  # soft Dice at the scale; 1 where the mask is unknown
    residuals: Float[Array, "view landmark"]  # of landmarks over sigma; 0 where not seen


class Expansion(eqx.Module):
    """The objective near a point, and by how much its gradient is uncertain."""

    quadratic: Quadratic
    noise: Matrix  # covariance of the gradient
    agreement: Agreement


class _Linearised(eqx.Module):
    images: Float[Array, "view 2 h w"]  # line integral and silhouette
    image_tangents: Float[Array, "unknown view 2 h w"]
    residuals: Float[Array, "view landmark 2"]
    residual_tangents: Float[Array, "unknown view landmark 2"]


def unknowns(parameters: FitParameters) -> Unknowns:
    """Rotation, translation and coefficients in a row."""
    return ravel_pytree(parameters)[0]


def parameters_of(x: Unknowns) -> FitParameters:
    """The inverse of `unknowns`."""
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
    """`objective` near x: its value and gradient, its Gauss-Newton curvature and the noise
    of its gradient. One rendering of every view with one tangent for each unknown.

    The noise of the image terms is read from their residuals: the sum over blocks of the crop
    of g g', g the block's share of the gradient (a sandwich estimate, robust to neighbours
    and to correlation within a block). Landmarks contribute their stated variance, raised
    where their residuals are larger, and the prior that of coefficients ~ N(0, I).
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
    # The splats know their reverse pass only; it is linear, and its transpose pushes forward.
    push = jax.linear_transpose(pull, (images, residuals))
    along = jnp.eye(len(x), dtype=x.dtype)
    ((image_tangents, residual_tangents),) = jax.vmap(lambda d: push((d,)))(along)
    return _Linearised(images, image_tangents, residuals, residual_tangents)


def _image_terms(
    near: _Linearised, evidence: Evidence, similarity: Similarity, weights: ObjectiveWeights
):
    """Similarity and silhouette: their quadratic, each block's share of the gradient
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

    terms, judged = jax.vmap(one_view, in_axes=(0, 1, 0, 0, 0))(
        near.images, near.image_tangents, evidence.images, evidence.masks, evidence.weights
    )
    value, shares, curvature = (_weighted(term, evidence.view_weight) for term in terms)
    shares = jnp.moveaxis(shares, 0, 1).reshape(shares.shape[1], -1)
    quadratic = Quadratic(jnp.sum(value), jnp.sum(shares, axis=1), jnp.sum(curvature, axis=0))
    return quadratic, shares, *judged


def _weighted(term: Float[Array, "view *rest"], weight: Float[Array, " view"]):
    # A view switched off may hold anything, NaN included: multiplying by 0 is not enough.
    weight = weight.reshape(-1, *(1,) * (term.ndim - 1))
    return jnp.where(weight > 0.0, weight * term, 0.0)


def self_curvature(
    similarity: Similarity, image: Image, weights: Image, tangents: Float[Array, "unknown h w"]
) -> Matrix:
    """Hessian of 1 - similarity(image, image) in its first argument, along tangents of the
    image: for correlations the Gauss-Newton curvature. What a floor in the similarity makes
    negative is set to 0."""

    def slope(own: Image) -> Image:
        return -jax.grad(similarity)(own, image, weights)

    products = jax.vmap(lambda tangent: jax.jvp(slope, (image,), (tangent,))[1])(tangents)
    hessian = jnp.einsum("ihw,jhw->ij", tangents, products)
    values, vectors = jnp.linalg.eigh(0.5 * (hessian + hessian.T))
    return (vectors * jnp.maximum(values, 0.0)[None]) @ vectors.T


def overlap_curvature(
    silhouette: Image, mask: Image, tangents: Float[Array, "unknown h w"]
) -> Matrix:
    """Gauss-Newton curvature of 1 - soft Dice along tangents of the silhouette."""
    size = jnp.sum(silhouette**2) + jnp.sum(mask**2) + 1e-6
    return 2.0 / size * jnp.einsum("ihw,jhw->ij", tangents, tangents)


def block_sums(images: Float[Array, "unknown h w"]) -> Float[Array, "unknown block"]:
    """Sums over the NUM_BLOCKS x NUM_BLOCKS blocks of an image, row by row. Sides that are
    not divisible are filled up with 0."""
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
