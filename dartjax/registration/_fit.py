"""Reconstruction of one vertebra from its observations, as a pure function.

Levenberg-Marquardt first fits pose and shape to the landmarks. Adam then fits the images from
coarse to fine, in scans of fixed length: every case takes the same number of steps, so a
batch under `vmap` needs no communication between devices.
"""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dartjax import transforms
from dartjax._types import Coefficients, Scalar
from dartjax.observations import Observations
from dartjax.registration._landmark_fit import fit_landmarks
from dartjax.registration._objective import (
    Evidence,
    FitParameters,
    MultiViewScore,
    ObjectiveWeights,
    Similarity,
    Surroundings,
    evidence_at_scale,
    moved_pose,
    objective,
    posed_vertices,
    render_views,
    soft_dice,
    with_region,
    with_surroundings,
    zero_parameters,
)
from dartjax.registration._triangulate import ray_angle
from dartjax.render import SplatOptions
from dartjax.ssm import ShapeModel

_NEARLY_PARALLEL_DEG = 20.0
STATUS_MEANING: dict[int, str] = {
    0: "converged",
    1: "the result is not finite",
    2: "the result disagrees with the masks",
    3: "a shape coefficient is beyond 3.5 standard deviations",
    4: "one view, or views that are nearly parallel: depth is poorly determined",
    5: "the similarity network predicts a large error of the result",
    6: "the result disagrees with the landmarks",
    7: "the spine is of unusual size, or the pixel spacing is wrong",
}


class Scale(NamedTuple):
    """One stage of the coarse-to-fine schedule."""

    num_pixels: int
    blur_mm: float
    num_steps: int
    learning_rate: float


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """Static options of a fit; hashable, so they can be a static argument of jit.

    `similarity` holds one function for each scale, because window sizes are in pixels and pixel
    sizes differ between scales. Each takes (rendered, observed, weights) of one view.
    """

    similarity: tuple[Similarity, ...]
    scales: tuple[Scale, ...] = (Scale(64, 1.2, 35, 0.08), Scale(128, 0.7, 20, 0.04))
    weights: ObjectiveWeights = ObjectiveWeights()
    crop_width_mm: float = 110.0
    region_dilation_mm: float = 4.0
    nonnegative_modes: int = 0  # number of last modes kept >= 0, such as fracture modes
    neighbours_rendered: bool = True  # in a joint fit; False if each image shows one vertebra
    # In a joint fit: the centre of a vertebra's shape prior, as a factor of its neighbours' mean
    # deviation from their mean shapes. 0 centres the prior on the mean shape.
    shape_coupling: float = 0.8
    multiview: MultiViewScore | None = None  # additional term of all views, at every scale


class Reconstruction(eqx.Module):
    """Result of a fit: pose and shape coefficients of one vertebra, losses, agreement, status."""

    pose: transforms.SE3  # T_world_vertebra
    coefficients: Coefficients
    loss: Scalar  # of the last scale
    history: Float[Array, " step"]
    mask_agreement: Float[Array, " view"]  # soft Dice with the observed mask; 1 = no mask
    status: Int[Array, ""]  # see STATUS_MEANING


def fit(
    model: ShapeModel,
    observations: Observations,
    start: transforms.SE3,
    options: FitOptions,
    around: Surroundings | None = None,
    coefficients: Coefficients | None = None,
) -> Reconstruction:
    """Fit pose (6) and shape (m) of one vertebra to K views.

    `start` is T_world_vertebra, within about 10 mm and 15 degrees of the true pose. Detected
    landmarks refine it first, unless `coefficients` are given: then the descent starts at exactly
    that pose and shape. `around` are reconstructed vertebrae in the same beams, rendered
    together with this one. Fitting all vertebrae of a scene in turn, each with the latest state
    of its neighbours, is a joint fit (block coordinate descent). jit with `options` static; vmap
    over cases and starts. Never raises: read `status`.
    """
    parameters = start_parameters(model, observations, start, options, coefficients)
    histories = []
    for scale, similarity in zip(options.scales, options.similarity, strict=True):
        evidence, splat_options = prepare(
            model, start, parameters, observations, scale, options, around
        )
        parameters, history = descend(
            parameters, model, start, evidence, similarity, splat_options, scale, options
        )
        histories.append(history)
    return finish(model, observations, start, parameters, jnp.concatenate(histories), options)


def descent_direction(
    model: ShapeModel,
    observations: Observations,
    pose: transforms.SE3,
    coefficients: Coefficients,
    options: FitOptions,
) -> Float[Array, " unknown"]:
    """Compute the descent direction of the first scale of a fit at a pose and shape: minus the
    gradient of the objective, in the units of `FitParameters` (rotation, translation,
    coefficients)."""
    begin = dataclasses.replace(zero_parameters(len(model.modes)), coefficients=coefficients)
    scale, similarity = options.scales[0], options.similarity[0]
    evidence, splats = prepare(model, pose, begin, observations, scale, options)

    def loss_of(x: FitParameters) -> Scalar:
        weights, score = options.weights, options.multiview
        return objective(x, model, pose, evidence, similarity, weights, splats, score)

    slope = jax.grad(loss_of)(begin)
    return -jnp.concatenate([slope.rotation, slope.translation, slope.coefficients])


def start_parameters(
    model: ShapeModel,
    observations: Observations,
    start: transforms.SE3,
    options: FitOptions,
    coefficients: Coefficients | None = None,
) -> FitParameters:
    """Compute the parameters at which the descent starts: the start itself if a shape is given
    with it, else the fit of the landmarks if their weight is above 0."""
    parameters = zero_parameters(len(model.modes))
    if coefficients is not None:
        return dataclasses.replace(parameters, coefficients=coefficients)
    if options.weights.landmarks > 0.0:
        return fit_landmarks(model, observations, start)
    return parameters


def fit_from_starts(
    model: ShapeModel,
    observations: Observations,
    start: transforms.SE3,
    options: FitOptions,
    around: Surroundings | None = None,
    *,
    num_starts: int,
    key: PRNGKeyArray,
    rotation_sigma: float = 0.08,
    translation_sigma: float = 3.0,
) -> Reconstruction:
    """Fit from several starts and return the result with the lowest loss. The first start is
    `start`, the others are random disturbances of it (normal, rad and mm per axis)."""
    poses = jax.vmap(lambda k, s: _disturb(start, k, s * rotation_sigma, s * translation_sigma))(
        jax.random.split(key, num_starts), jnp.where(jnp.arange(num_starts) == 0, 0.0, 1.0)
    )
    fits = jax.vmap(lambda pose: fit(model, observations, pose, options, around))(poses)
    best = jnp.argmin(jnp.where(jnp.isfinite(fits.loss), fits.loss, jnp.inf))
    return jax.tree.map(lambda leaf: leaf[best], fits)


def _disturb(pose: transforms.SE3, key: PRNGKeyArray, rotation: Scalar, translation: Scalar):
    turn, shift = jax.random.normal(key, (2, 3))
    return transforms.perturb(pose, turn * rotation, shift * translation)


def prepare(
    model: ShapeModel,
    start: transforms.SE3,
    parameters: FitParameters,
    observations: Observations,
    scale: Scale,
    options: FitOptions,
    around: Surroundings | None = None,
) -> tuple[Evidence, SplatOptions]:
    """Make the observations of a scale, with the region of interest fixed around the current
    fit."""
    pixel_mm = options.crop_width_mm / scale.num_pixels
    blur_px = scale.blur_mm / pixel_mm
    splat_options = _splat_options(pixel_mm, blur_px)
    evidence = evidence_at_scale(observations, scale.num_pixels, blur_px)
    vertices = posed_vertices(model, start, parameters)
    rendered = render_views(vertices, model, evidence.cameras, splat_options)
    region = with_region(evidence, rendered, options.region_dilation_mm / pixel_mm)
    if around is not None:
        region = with_surroundings(region, around, vertices, model, splat_options)
    return jax.lax.stop_gradient(region), splat_options


def _splat_options(pixel_mm: float, blur_px: float) -> SplatOptions:
    # The image blur widens every splat, so the rendering needs no separate blur.
    antialias = 0.3 + blur_px**2
    sigma_px = ((1.3 / pixel_mm) ** 2 + antialias) ** 0.5
    return SplatOptions(window=2 * int(3.0 * sigma_px + 0.5) + 1, antialias=antialias)


def descend(
    parameters: FitParameters,
    model: ShapeModel,
    start: transforms.SE3,
    evidence: Evidence,
    similarity: Similarity,
    splat_options: SplatOptions,
    scale: Scale,
    options: FitOptions,
) -> tuple[FitParameters, Float[Array, " step"]]:
    """Minimise the objective at one scale by Adam; the learning rate halves over the stage."""
    schedule = optax.exponential_decay(scale.learning_rate, scale.num_steps, 0.5)
    optimizer = optax.adam(schedule, b2=0.99)

    def loss_of(x: FitParameters) -> Scalar:
        weights, score = options.weights, options.multiview
        return objective(x, model, start, evidence, similarity, weights, splat_options, score)

    def step(carry, _):
        x, state = carry
        loss, gradient = jax.value_and_grad(loss_of)(x)
        updates, state = optimizer.update(gradient, state)  # pyright: ignore
        return (_projected(eqx.apply_updates(x, updates), options.nonnegative_modes), state), loss

    (parameters, _), history = jax.lax.scan(
        step,
        (parameters, optimizer.init(parameters)),  # pyright: ignore
        length=scale.num_steps,
    )
    return parameters, history


def _projected(parameters: FitParameters, num_nonnegative: int) -> FitParameters:
    """Clip the last `num_nonnegative` coefficients at 0 from below."""
    coefficients = parameters.coefficients
    limited = jnp.arange(len(coefficients)) >= len(coefficients) - num_nonnegative
    raised = jnp.where(limited, jnp.maximum(coefficients, 0.0), coefficients)
    return dataclasses.replace(parameters, coefficients=raised)


def finish(
    model: ShapeModel,
    observations: Observations,
    start: transforms.SE3,
    parameters: FitParameters,
    history: Float[Array, " step"],
    options: FitOptions,
) -> Reconstruction:
    """Make the result of a fit: pose, agreement with the masks at full resolution, and status."""
    num_pixels = observations.images.shape[-1]
    evidence = evidence_at_scale(observations, num_pixels, 0.0)
    vertices = posed_vertices(model, start, parameters)
    sharp = _splat_options(options.crop_width_mm / num_pixels, 0.0)
    rendered = render_views(vertices, model, evidence.cameras, sharp)
    agreement = jax.vmap(soft_dice)(evidence.exposed * rendered.silhouette, evidence.masks)
    known = (jnp.max(evidence.masks, axis=(1, 2)) > 0.0) & observations.view_valid
    agreement = jnp.where(known, agreement, 1.0)
    return Reconstruction(
        pose=moved_pose(start, parameters),
        coefficients=parameters.coefficients,
        loss=history[-1],
        history=history,
        mask_agreement=agreement,
        status=_status(parameters, history[-1], agreement, observations),
    )


def _status(
    parameters: FitParameters,
    loss: Scalar,
    agreement: Float[Array, " view"],
    observations: Observations,
) -> Int[Array, ""]:
    leaves = jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(parameters)])
    finite = jnp.isfinite(loss) & jnp.all(jnp.isfinite(leaves))
    angle = ray_angle(observations.cameras, observations.view_valid.astype(loss.dtype))
    # Each test is of what is good, so that NaN fails it.
    status = jnp.where(angle >= jnp.deg2rad(_NEARLY_PARALLEL_DEG), 0, 4)
    status = jnp.where(jnp.all(jnp.abs(parameters.coefficients) <= 3.5), status, 3)
    status = jnp.where(jnp.all(agreement >= 0.75), status, 2)
    return jnp.where(finite, status, 1).astype(jnp.int32)
