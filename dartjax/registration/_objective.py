"""Objective of the fits: compare a posed vertebra with its observations, and sum the terms.

All terms are for one vertebra in K views. A similarity is a callable
(rendered, observed, weights) -> score of one view, higher is better. A similarity of all views
together, such as a learned one, is a callable of a `Comparison`.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax import camera as cameras
from dartjax import transforms
from dartjax._numerics import pseudo_huber
from dartjax._types import Coefficients, Image, Images, Point, Scalar, Vertices
from dartjax.camera import Camera
from dartjax.image import gaussian_blur
from dartjax.observations import Observations, without_ignored
from dartjax.render import SplatOptions, XrayChannels, splat, two_compartment
from dartjax.ssm import ShapeModel, instance, landmarks

Similarity = Callable[[Image, Image, Image], Scalar]
HUBER_DELTA = 3.0  # of a landmark's residual, in standard deviations

# Of the pose that a neighbour suggests, if no other is given: turn (rad), shift (mm).
_EXPECTED_SIGMA = (0.07, 0.05, 0.05, 2.0, 2.5, 2.5)


class FitParameters(eqx.Module):
    """Unknowns of one vertebra (6 + m) as a step from a start pose, in units that give them similar
    effects on the image: 0.05 rad, 2.5 mm, one standard deviation."""

    rotation: Float[Array, "3"]
    translation: Float[Array, "3"]
    coefficients: Coefficients

    ROTATION_UNIT = 0.05  # rad
    TRANSLATION_UNIT = 2.5  # mm


def zero_parameters(num_modes: int) -> FitParameters:
    """Make the parameters of no motion and the mean shape."""
    return FitParameters(jnp.zeros(3), jnp.zeros(3), jnp.zeros(num_modes))


def moved_pose(start: transforms.SE3, parameters: FitParameters) -> transforms.SE3:
    """Turn the start pose about the vertebra's own origin and shift it, in world axes."""
    return transforms.perturb(
        start,
        parameters.rotation * FitParameters.ROTATION_UNIT,
        parameters.translation * FitParameters.TRANSLATION_UNIT,
    )


def posed_vertices(model: ShapeModel, start: transforms.SE3, parameters: FitParameters) -> Vertices:
    """Compute the vertices of the posed, shaped surface in world mm."""
    return transforms.apply(moved_pose(start, parameters), instance(model, parameters.coefficients))


@dataclasses.dataclass(frozen=True)
class ObjectiveWeights:
    """Weights of the terms of the objective.

    `landmarks` multiplies sum r^2 / (2 sigma^2); `prior` multiplies |b - b_0|^2 / 2 (b_0 = 0, or
    the coefficients that the shape coupling gives); `neighbours` multiplies the same sum of the
    deviation from the pose that the other vertebrae suggest; `multiview` multiplies the score of
    all views together, if there is one.
    """

    similarity: float = 1.0
    multiview: float = 1.0
    silhouette: float = 3.0
    landmarks: float = 0.01
    prior: float = 0.01
    neighbours: float = 0.01


class ExpectedPose(eqx.Module):
    """Pose that the other vertebrae of a spine suggest, with standard deviations of turn (rad) and
    shift (mm) in its axes; `known` False disables it."""

    pose: transforms.SE3
    known: Bool[Array, "*vertebra"]
    sigma: Float[Array, "*vertebra 6"] = eqx.field(
        default_factory=lambda: jnp.array(_EXPECTED_SIGMA)
    )


def no_expected_pose() -> ExpectedPose:
    """Make a disabled `ExpectedPose`: no other vertebra is known."""
    return ExpectedPose(transforms.SE3.identity(), jnp.asarray(False))


class Evidence(eqx.Module):
    """Observations at one scale, blurred and weighted for the comparison with renders."""

    cameras: Camera
    images: Images
    masks: Images
    exposed: Images  # 1 where the radiograph was recorded
    weights: Images  # region of interest of the similarity
    background: Images  # line integrals of known other vertebrae, added to every render
    landmarks: Float[Array, "view landmark 2"]
    landmark_sigma: Float[Array, "view landmark"]
    view_weight: Float[Array, " view"]  # adds up to 1 over the valid views
    expected: ExpectedPose  # by the other vertebrae
    shape: Float[Array, "*mode"]  # coefficients about which the prior is centred


class Comparison(eqx.Module):
    """Renders of a fit and observations of all views (leading axis), the input of a
    `MultiViewScore`."""

    rendered: Images  # of this vertebra alone, line integrals
    silhouettes: Images
    observed: Images
    masks: Images  # all 0 = unknown
    cameras: Camera
    pose: transforms.SE3  # T_world_vertebra of the fit
    valid: Bool[Array, " view"]


# Higher is better; differentiable in pose and shape through renders and camera geometry.
MultiViewScore = Callable[[Comparison], Scalar]


def evidence_at_scale(observations: Observations, num_pixels: int, blur_px: float) -> Evidence:
    """Downsample observations by averaging (an integer factor), blur images and masks, and give all
    exposed pixels the same weight; `with_region` narrows the region of interest. ValueError if
    `num_pixels` does not divide the size of the crop."""
    observations = without_ignored(observations)
    full = observations.images.shape[-1]
    factor = full // num_pixels
    if factor * num_pixels != full:
        raise ValueError(f"a scale of {num_pixels} px does not divide the crop of {full} px")

    def shrink(image: Image) -> Float[Array, "small small"]:
        pooled = image.reshape(num_pixels, factor, num_pixels, factor).mean((1, 3))
        return gaussian_blur(pooled, blur_px)

    valid = observations.view_valid.astype(observations.images.dtype)
    scaled = jax.vmap(lambda c: cameras.resize(c, (num_pixels, num_pixels)))(observations.cameras)
    recorded = observations.exposed > 0.5
    images = jax.vmap(shrink)(jnp.where(recorded, observations.images, 0.0))
    masks = jax.vmap(shrink)(jnp.where(recorded, observations.masks, 0.0))
    # A blurred pixel counts if all pixels that contribute to it were recorded.
    exposed = (jax.vmap(shrink)(observations.exposed) > 0.99).astype(images.dtype)
    return Evidence(
        cameras=scaled,
        images=images,
        masks=exposed * masks,
        exposed=exposed,
        weights=exposed,
        background=jnp.zeros_like(images),
        landmarks=observations.landmarks / factor,
        landmark_sigma=observations.landmark_sigma,
        view_weight=valid / jnp.maximum(jnp.sum(valid), 1.0),
        expected=no_expected_pose(),
        shape=jnp.zeros(()),
    )


def render_views(vertices: Vertices, model: ShapeModel, views: Camera, options: SplatOptions):
    """Render the three X-ray channels of the surface in every view (leading view axis)."""
    return jax.vmap(lambda c: splat(vertices, model.faces, c, options))(views)


def with_region(evidence: Evidence, rendered: XrayChannels, dilation_px: float) -> Evidence:
    """Weight pixels by the rendered silhouette dilated by about `dilation_px`. The caller stops
    gradients through this region of interest, so that it does not move during the descent."""

    def dilate(silhouette: Image) -> Image:
        spread = gaussian_blur(silhouette, dilation_px / 1.5)
        return jnp.clip(4.0 * spread, 0.0, 1.0)

    region = evidence.exposed * jax.vmap(dilate)(rendered.silhouette)
    return dataclasses.replace(evidence, weights=region)


class Surroundings(eqx.Module):
    """Other vertebrae in the beam, as surfaces in world mm on the triangulation of the model.
    Entries with `present` False are ignored, so all cases of a batch can have the same number."""

    vertices: Float[Array, "other vertex 3"]
    present: Bool[Array, " other"]


def with_surroundings(
    evidence: Evidence,
    around: Surroundings,
    own: Vertices,
    model: ShapeModel,
    options: SplatOptions,
) -> Evidence:
    """Render other vertebrae into the background of every view. They are fixed during the fit, and
    their attenuation is then not attributed to the fitted vertebra, whose vertices are `own`. A
    vertebra that is not finite counts as absent."""
    present = around.present & jnp.all(jnp.isfinite(around.vertices), axis=(1, 2))
    # The position of an absent vertebra is arbitrary: render a surface that is in the views.
    vertices = jnp.where(present[:, None, None], around.vertices, own[None])

    def add(total: Images, other: tuple[Vertices, Bool[Array, ""]]) -> tuple[Images, None]:
        vertices, present = other
        channels = render_views(vertices, model, evidence.cameras, options)
        image = jax.vmap(two_compartment)(channels)
        return total + jnp.where(present, jnp.nan_to_num(image), 0.0), None

    background, _ = jax.lax.scan(add, jnp.zeros_like(evidence.images), (vertices, present))
    return dataclasses.replace(evidence, background=background)


def soft_dice(a: Image, b: Image) -> Scalar:
    """Compute 2 sum ab / (sum a^2 + sum b^2) of images in [0, 1]; 0 if both are empty."""
    return 2.0 * jnp.sum(a * b) / (jnp.sum(a * a) + jnp.sum(b * b) + 1e-6)


def landmark_residuals(
    points: Float[Array, "landmark 3"], seen: Observations | Evidence
) -> Float[Array, "view landmark 2"]:
    """Compute the reprojection residuals over sigma: in-plane mm at each landmark's depth / sigma
    in mm. A landmark that was not seen (sigma or pixel not finite) gives 0."""

    def one_view(view: Camera, pixels: Float[Array, "n 2"], sigma: Float[Array, " n"]):
        seen = (jnp.isfinite(sigma) & jnp.all(jnp.isfinite(pixels), axis=-1))[:, None]
        in_mm = cameras.reprojection_mm(view, points, jnp.where(seen, pixels, 0.0))
        return jnp.where(seen, in_mm / jnp.where(seen, sigma[:, None], 1.0), 0.0)

    return jax.vmap(one_view)(seen.cameras, seen.landmarks, seen.landmark_sigma)


def objective(
    parameters: FitParameters,
    model: ShapeModel,
    start: transforms.SE3,
    evidence: Evidence,
    similarity: Similarity,
    weights: ObjectiveWeights,
    options: SplatOptions,
    multiview: MultiViewScore | None = None,
) -> Scalar:
    """Compute the weighted sum of image dissimilarity, silhouette, landmarks and priors:

      mean over views of [w_s (1 - similarity) + w_m (1 - soft Dice)]
      + w_l sum huber(r / sigma) + w_b |b - b_0|^2 / 2 + w_n huber(expected_pose_residual)
      - w_v multiview.

    Views without a mask have no silhouette term.
    """
    vertices = posed_vertices(model, start, parameters)
    rendered = render_views(vertices, model, evidence.cameras, options)
    total = 0.5 * weights.prior * jnp.sum((parameters.coefficients - evidence.shape) ** 2)
    if weights.similarity > 0.0:
        drr = jax.vmap(two_compartment)(rendered) + evidence.background
        scores = jax.vmap(similarity)(drr, evidence.images, evidence.weights)
        total = total + weights.similarity * jnp.sum(evidence.view_weight * (1.0 - scores))
    if multiview is not None and weights.multiview > 0.0:
        compared = _comparison(rendered, evidence, moved_pose(start, parameters))
        total = total - weights.multiview * multiview(compared)
    if weights.silhouette > 0.0:
        known = jnp.max(evidence.masks, axis=(1, 2)) > 0.0
        seen = evidence.exposed * rendered.silhouette
        overlap = jax.vmap(soft_dice)(seen, evidence.masks)
        missed = jnp.where(known, 1.0 - overlap, 0.0)
        total = total + weights.silhouette * jnp.sum(evidence.view_weight * missed)
    if weights.landmarks > 0.0:
        residuals = landmark_residuals(landmarks(model, vertices), evidence)
        squared = jnp.sum(residuals**2, axis=-1)
        valid = (evidence.view_weight > 0.0)[:, None]
        robust = pseudo_huber(squared, HUBER_DELTA)
        total = total + weights.landmarks * jnp.sum(jnp.where(valid, robust, 0.0))
    if weights.neighbours > 0.0:
        residual = expected_pose_residual(moved_pose(start, parameters), evidence.expected)
        total = total + weights.neighbours * pseudo_huber(jnp.sum(residual**2), HUBER_DELTA)
    return total


def _comparison(rendered: XrayChannels, evidence: Evidence, pose: transforms.SE3) -> Comparison:
    return Comparison(
        rendered=jax.vmap(two_compartment)(rendered),
        silhouettes=rendered.silhouette,
        observed=evidence.images,
        masks=evidence.masks,
        cameras=evidence.cameras,
        pose=pose,
        valid=evidence.view_weight > 0.0,
    )


def expected_pose_residual(pose: transforms.SE3, expected: ExpectedPose) -> Float[Array, "6"]:
    """Compute turn and shift from the expected pose, in its axes, over their standard deviations; 0
    if it is not known."""
    # A pose that is not known may be half a turn away, where the logarithm has no gradient: use the
    # fitted pose in its place.
    fitted = jax.lax.stop_gradient(pose)
    suggested = jax.tree.map(lambda a, b: jnp.where(expected.known, a, b), expected.pose, fitted)
    difference = suggested.inverse() @ pose
    off = jnp.concatenate([difference.rotation().log(), difference.translation()])
    return jnp.where(expected.known, off / jnp.where(expected.known, expected.sigma, 1.0), 0.0)


def centroid(model: ShapeModel, pose: transforms.SE3) -> Point:
    """Compute the mean of the mean shape's vertices in world mm, the centre of a crop."""
    return pose.apply(jnp.mean(model.mean_shape, axis=0))
