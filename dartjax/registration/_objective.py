"""What a posed, shaped vertebra is compared with, and how the terms are summed.

All terms are for one vertebra in K views. Similarities are plain callables
(rendered, observed, weights) -> score of one view, higher is better. One that looks at all views
at once, such as a learned one, is a callable of a `Comparison`.
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
from dartjax.observations import Observations
from dartjax.render import SplatOptions, XrayChannels, splat, two_compartment
from dartjax.ssm import ShapeModel, instance, landmarks

Similarity = Callable[[Image, Image, Image], Scalar]
HUBER_DELTA = 3.0  # of a landmark's residual, in standard deviations
# Of a vertebra about the pose that the next one suggests: flexion, side bending, axial turn (rad);
# right, anterior, superior (mm).
NEIGHBOUR_SIGMA = (0.07, 0.05, 0.05)
NEIGHBOUR_SIGMA_MM = (2.0, 2.5, 2.5)


class FitParameters(eqx.Module):
    """The 6 + m unknowns of one vertebra as steps from a start pose, in units in which an
    optimiser may treat them alike: 0.05 rad, 2.5 mm, one standard deviation."""

    rotation: Float[Array, "3"]
    translation: Float[Array, "3"]
    coefficients: Coefficients

    ROTATION_UNIT = 0.05  # rad
    TRANSLATION_UNIT = 2.5  # mm


def zero_parameters(num_modes: int) -> FitParameters:
    """The start: no motion, mean shape."""
    return FitParameters(jnp.zeros(3), jnp.zeros(3), jnp.zeros(num_modes))


def moved_pose(start: transforms.SE3, parameters: FitParameters) -> transforms.SE3:
    """The start pose turned about the vertebra's own origin and shifted, in world."""
    return transforms.perturb(
        start,
        parameters.rotation * FitParameters.ROTATION_UNIT,
        parameters.translation * FitParameters.TRANSLATION_UNIT,
    )


def posed_vertices(model: ShapeModel, start: transforms.SE3, parameters: FitParameters) -> Vertices:
    """The surface in world mm."""
    return transforms.apply(moved_pose(start, parameters), instance(model, parameters.coefficients))


@dataclasses.dataclass(frozen=True)
class ObjectiveWeights:
    """Weights of the terms. `landmarks` multiplies sum r^2 / (2 sigma^2), `prior`
    |b - b_0|^2 / 2 (b_0 = 0, or what the neighbours' shapes suggest),
    `neighbours` the same of the deviation from the pose that each neighbour suggests,
    `multiview` the score of all views at once, where there is one."""

    similarity: float = 1.0
    multiview: float = 1.0
    silhouette: float = 3.0
    landmarks: float = 0.01
    prior: float = 0.01
    neighbours: float = 0.01


class Neighbour(eqx.Module):
    """Where a vertebra is expected from a fitted neighbour; `known` False switches it off."""

    pose: transforms.SE3
    known: Bool[Array, "*neighbour"]


def no_neighbour() -> Neighbour:
    """Nothing is known of the neighbours."""
    return Neighbour(transforms.SE3.identity(), jnp.asarray(False))


class Evidence(eqx.Module):
    """Observations at one scale, blurred and weighted, ready to be compared with renders."""

    cameras: Camera
    images: Images
    masks: Images
    exposed: Images  # 1 where images and masks say something
    weights: Images  # region of interest of the similarity
    background: Images  # what else is known to be in the beam, added to every render
    landmarks: Float[Array, "view landmark 2"]
    landmark_sigma: Float[Array, "view landmark"]
    view_weight: Float[Array, " view"]  # adds up to 1 over the valid views
    neighbours: Neighbour  # with a leading axis, such as (above, below)
    shape: Float[Array, "*mode"]  # coefficients about which the prior is centred


class Comparison(eqx.Module):
    """A fit beside what was seen, in all views at once (leading axis): for similarities that do
    not judge view by view."""

    rendered: Images  # of this vertebra alone, line integrals
    silhouettes: Images
    observed: Images
    masks: Images  # all 0 = unknown
    cameras: Camera
    pose: transforms.SE3  # T_world_vertebra of the fit: the frame its cameras are described in
    valid: Bool[Array, " view"]


# Higher is better; its gradient is that of pose and shape, through render and camera geometry.
MultiViewScore = Callable[[Comparison], Scalar]


def evidence_at_scale(observations: Observations, num_pixels: int, blur_px: float) -> Evidence:
    """Downsample by averaging (an integer factor), blur images and masks, and weigh every
    exposed pixel alike; `with_region` narrows the region of interest."""
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
    # A blurred pixel counts if all it is blurred from was recorded.
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
        neighbours=jax.tree.map(lambda leaf: leaf[None], no_neighbour()),
        shape=jnp.zeros(()),
    )


def render_views(vertices: Vertices, model: ShapeModel, views: Camera, options: SplatOptions):
    """The three X-ray channels of the surface in every view (leading view axis)."""
    return jax.vmap(lambda c: splat(vertices, model.faces, c, options))(views)


def with_region(evidence: Evidence, rendered: XrayChannels, dilation_px: float) -> Evidence:
    """Weigh pixels by the rendered silhouette dilated by about `dilation_px`: the region of
    interest, frozen afterwards so that it cannot move with what it judges."""

    def dilate(silhouette: Image) -> Image:
        spread = gaussian_blur(silhouette, dilation_px / 1.5)
        return jnp.clip(4.0 * spread, 0.0, 1.0)

    region = evidence.exposed * jax.vmap(dilate)(rendered.silhouette)
    return dataclasses.replace(evidence, weights=region)


class Surroundings(eqx.Module):
    """Other vertebrae in the beam, as surfaces in world mm on the triangulation of the model.
    One with `present` False takes no part, so their number can be that of a batch."""

    vertices: Float[Array, "other vertex 3"]
    present: Bool[Array, " other"]


def with_surroundings(
    evidence: Evidence, around: Surroundings, model: ShapeModel, options: SplatOptions
) -> Evidence:
    """The evidence with other vertebrae rendered into every view, where they stay as they are:
    what they attenuate is no longer laid at this vertebra's door."""

    def add(total: Images, other: tuple[Vertices, Bool[Array, ""]]) -> tuple[Images, None]:
        vertices, present = other
        # A vertebra that is not there may stand anywhere, its pixels may be NaN.
        channels = render_views(vertices, model, evidence.cameras, options)
        image = jax.vmap(two_compartment)(channels)
        return total + jnp.where(present, jnp.nan_to_num(image), 0.0), None

    background, _ = jax.lax.scan(
        add, jnp.zeros_like(evidence.images), (around.vertices, around.present)
    )
    return dataclasses.replace(evidence, background=background)


def soft_dice(a: Image, b: Image) -> Scalar:
    """2 sum ab / (sum a^2 + sum b^2) of images in [0, 1]; 0 when both are empty."""
    return 2.0 * jnp.sum(a * b) / (jnp.sum(a * a) + jnp.sum(b * b) + 1e-6)


def landmark_residuals(
    points: Float[Array, "landmark 3"], seen: Observations | Evidence
) -> Float[Array, "view landmark 2"]:
    """Reprojection residuals over sigma: in-plane mm at each landmark's depth / sigma in mm.
    A landmark that was not seen (sigma = inf) gives 0."""

    def one_view(view: Camera, pixels: Float[Array, "n 2"], sigma: Float[Array, " n"]):
        in_mm = cameras.reprojection_mm(view, points, pixels)
        return jnp.where(jnp.isfinite(sigma)[:, None], in_mm / sigma[:, None], 0.0)

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
    """Weighted sum of image dissimilarity, silhouette, landmarks and shape prior.

    mean over views of [w_s (1 - similarity) + w_m (1 - soft Dice)]
    + w_l sum huber(r / sigma) + w_b |b - b_0|^2 / 2 + w_n sum huber(neighbour_residuals)
    - w_v multiview. Views without a mask skip the silhouette.
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
        residuals = neighbour_residuals(moved_pose(start, parameters), evidence.neighbours)
        robust = pseudo_huber(jnp.sum(residuals**2, axis=-1), HUBER_DELTA)
        total = total + weights.neighbours * jnp.sum(robust)
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


def neighbour_residuals(pose: transforms.SE3, expected: Neighbour) -> Float[Array, "neighbour 6"]:
    """Turn and shift from each expected pose, in its own axes, over their standard deviations;
    0 where the neighbour is not known."""

    def one(suggested: transforms.SE3, known: Bool[Array, ""]):
        # Away from the switch too, the logarithm has a gradient: half a turn off it has none.
        own = jax.lax.stop_gradient(pose)
        suggested = jax.tree.map(lambda a, b: jnp.where(known, a, b), suggested, own)
        away = suggested.inverse() @ pose
        turn = away.rotation().log() / jnp.array(NEIGHBOUR_SIGMA)
        shift = away.translation() / jnp.array(NEIGHBOUR_SIGMA_MM)
        return jnp.where(known, jnp.concatenate([turn, shift]), 0.0)

    return jax.vmap(one)(expected.pose, expected.known)


def centroid(model: ShapeModel, pose: transforms.SE3) -> Point:
    """Middle of the mean shape's vertices in world: where a crop is centred."""
    return pose.apply(jnp.mean(model.mean_shape, axis=0))
