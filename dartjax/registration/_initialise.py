"""Initialisation: the pose of a vertebra from its detections, and the tier of its evidence.

One robust pose fit serves all initialisation tiers: reprojected landmarks, centroids of the masks,
and a prior on the pose (that of its neighbours, else the patient's axes). The tiers differ in
the evidence that is available. Spine-DART initialises only from three landmarks seen in both
views, and falls back on fixed landmarks in AP and lateral views.
"""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dartjax import camera as cameras
from dartjax import transforms
from dartjax._least_squares import levenberg_marquardt
from dartjax._numerics import safe_norm
from dartjax._types import Point, Points, Scalar
from dartjax.camera import Camera
from dartjax.observations import NUM_LANDMARKS, PARTNER, Observations, without_ignored
from dartjax.registration._landmark_residuals import centroid_of, exchangeable_residuals, robust
from dartjax.registration._objective import ExpectedPose, no_expected_pose
from dartjax.registration._triangulate import nearest_to_rays, triangulate, viewing_rays
from dartjax.ssm import ShapeModel, landmarks

TIERS: dict[int, str] = {
    0: "landmarks common to two views",
    1: "landmarks of all views",
    2: "few landmarks and masks",
    3: "masks, with the neighbour's or the patient's axes",
    4: "abstained: too little was detected, or it contradicts itself",
}
ABSTAINED = 4
_TRIPLES = np.array(list(itertools.combinations(range(NUM_LANDMARKS), 3)))
_OUTLIER = 3.0  # standard deviations
_MASK_SIGMA_MM = 6.0  # centroid of a mask to the centroid of the projected vertices
# Orientation relative to the patient's axes (about x, y, z), rad.
_AXES_SIGMA = (0.5, 0.25, 0.25)
# Errors of the initial poses that an expected pose is predicted from: turn (rad), shift (mm).
_START_SIGMA = (0.12, 0.1, 0.1, 6.0, 6.0, 6.0)
_TILTS_DEG = (-40.0, -20.0, 0.0, 20.0, 40.0)
_LEANS_DEG = (-20.0, 0.0, 20.0)
_BEST_TRIPLES = 4
_MOST_TURNED = 1.15  # rad, from the patient's axes


class Initialisation(eqx.Module):
    """Initial pose of a fit: T_world_vertebra, its initialisation tier (`TIERS`), the number of
    landmarks that agree with it within 3 sigma, and their rms residual in mm. `agrees` marks these
    landmarks, `exchanged` those with a left/right swap (see `agreeing_landmarks`)."""

    pose: transforms.SE3
    tier: Int[Array, ""]
    num_inliers: Int[Array, ""]
    residual_mm: Scalar
    agrees: Bool[Array, "view landmark"]
    exchanged: Bool[Array, "view landmark"]

    @property
    def rung(self) -> Int[Array, ""]:
        """The tier, by its name in 0.1."""
        return self.tier


def initialise(
    model: ShapeModel,
    observations: Observations,
    expected: ExpectedPose | None = None,
    *,
    num_steps: int = 12,
) -> Initialisation:
    """Estimate the pose of the mean shape from landmarks and masks of K views.

    Minimises sum rho(|r|^2 / sigma^2), rho(s) = s / (1 + s / 9), over reprojected landmarks
    (a left/right pair may be swapped in a view) and centroids of masks, plus the prior on the
    orientation. The fit starts from the four best of 120 alignments of three landmarks seen in two
    views, from the expected pose, and from 15 tilts of the patient's axes. Never raises: read
    `tier`; the pose of tier 4 is unreliable.
    """
    expected = no_expected_pose() if expected is None else _readable(expected)
    evidence = _gather(model, without_ignored(observations))
    starts = _starts(evidence, expected)

    def refine(start: transforms.SE3) -> tuple[transforms.SE3, Scalar]:
        def moved(x: Float[Array, "6"]) -> transforms.SE3:
            return transforms.perturb(start, 0.05 * x[:3], 2.5 * x[3:])

        def residual(x: Float[Array, "6"]) -> Float[Array, " residual"]:
            return _residuals(moved(x), evidence, expected)

        best = levenberg_marquardt(residual, jnp.zeros(6), num_steps=num_steps).x
        return moved(best), jnp.sum(residual(best) ** 2)

    poses, costs = jax.vmap(refine)(starts)
    chosen = jnp.argmin(jnp.where(jnp.isfinite(costs), costs, jnp.inf))
    pose = jax.tree.map(lambda leaf: leaf[chosen], poses)
    return _with_tier(pose, evidence, expected)


def _readable(expected: ExpectedPose) -> ExpectedPose:
    """Replace a pose that is not known, and may be NaN, by the identity."""
    known = expected.known & jnp.all(jnp.isfinite(_leaves_of(expected.pose)))
    pose = jax.tree.map(
        lambda leaf, other: jnp.where(known, leaf, other), expected.pose, no_expected_pose().pose
    )
    return ExpectedPose(pose, known, jnp.where(known, expected.sigma, 1.0))


def agreeing_landmarks(observations: Observations, found: Initialisation) -> Observations:
    """Remove the landmarks that disagree with an initial pose, and undo left/right swaps. A
    least-squares fit needs observations without such outliers."""
    partner = jnp.asarray(PARTNER)
    sigma = jnp.where(found.agrees, observations.landmark_sigma, jnp.inf)
    pixels = observations.landmarks
    return dataclasses.replace(
        observations,
        landmarks=jnp.where(found.exchanged[..., None], pixels[:, partner], pixels),
        landmark_sigma=jnp.where(found.exchanged, sigma[:, partner], sigma),
    )


class _Gathered(eqx.Module):
    """Detections of one vertebra and the model points they are compared with."""

    views: Camera
    pixels: Float[Array, "view landmark 2"]
    sigma: Float[Array, "view landmark"]  # inf = not seen
    mask_centers: Float[Array, "view 2"]
    mask_known: Bool[Array, " view"]
    valid: Bool[Array, " view"]
    landmarks: Points  # of the mean shape, vertebra frame
    middle: Point  # of its vertices


def _gather(model: ShapeModel, observations: Observations) -> _Gathered:
    valid = observations.view_valid
    centers, masked = jax.vmap(centroid_of)(observations.masks)
    return _Gathered(
        views=observations.cameras,
        pixels=observations.landmarks,
        sigma=observations.landmark_sigma,
        mask_centers=centers,
        mask_known=valid & masked,
        valid=valid,
        landmarks=landmarks(model, model.mean_shape),
        middle=jnp.mean(model.mean_shape, axis=0),
    )


def _starts(evidence: _Gathered, expected: ExpectedPose) -> transforms.SE3:
    """Make the poses from which the fit starts (leading axis)."""
    triples = _triple_poses(evidence, expected)
    axes = transforms.SO3.identity()
    base = jax.tree.map(
        lambda own, other: jnp.where(expected.known, other, own), axes, expected.pose.rotation()
    )
    turns = [
        transforms.SO3.from_y_radians(jnp.radians(lean))
        @ transforms.SO3.from_x_radians(jnp.radians(tilt))
        for tilt in _TILTS_DEG
        for lean in _LEANS_DEG
    ]
    tilted = [_placed(base @ turn, evidence) for turn in turns]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tilted)
    own = jax.tree.map(lambda leaf: leaf[None], expected.pose)
    unknown = jax.tree.map(lambda leaf: leaf[:1], stacked)
    own = jax.tree.map(lambda a, b: jnp.where(expected.known, a, b), own, unknown)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), triples, stacked, own)


def _triple_poses(evidence: _Gathered, expected: ExpectedPose) -> transforms.SE3:
    """Align the model to all triples of triangulated landmarks and return the poses with the
    lowest cost over all evidence. Triples that two views did not see have infinite cost."""
    found = triangulate(evidence.views, evidence.pixels, evidence.sigma)
    common = found.num_views >= 2

    def align(triple: Int[Array, "3"]) -> tuple[transforms.SE3, Scalar]:
        pose = transforms.align_points(evidence.landmarks[triple], found.points[triple])
        cost = jnp.sum(_residuals(pose, evidence, expected) ** 2)
        usable = jnp.all(common[triple]) & jnp.isfinite(cost)
        return pose, jnp.where(usable, cost, jnp.inf)

    poses, costs = jax.vmap(align)(jnp.asarray(_TRIPLES))
    best = jnp.argsort(costs)[:_BEST_TRIPLES]  # top_k would gather a sharded batch
    kept = jax.tree.map(lambda leaf: leaf[best], poses)
    fallback = _placed(transforms.SO3.identity(), evidence)
    usable = jnp.isfinite(costs[best])
    return jax.tree.map(
        lambda leaf, other: jnp.where(usable[:, None], leaf, other[None]), kept, fallback
    )


def _placed(rotation: transforms.SO3, evidence: _Gathered) -> transforms.SE3:
    """Find the position, for a given orientation, at which landmarks and centre lie nearest to
    their rays."""
    directions = jax.vmap(viewing_rays)(evidence.views, evidence.pixels)
    to_mask = jax.vmap(viewing_rays)(evidence.views, evidence.mask_centers[:, None])
    sources = jax.vmap(lambda view: view.source)(evidence.views)
    turned = evidence.landmarks @ rotation.as_matrix().T
    origins = sources[:, None] - turned[None]
    mask_origins = sources - rotation.apply(evidence.middle)[None]
    seen = jnp.isfinite(evidence.sigma)
    weights = jnp.where(seen, 1.0 / jnp.where(seen, evidence.sigma, 1.0) ** 2, 0.0)
    mask_weights = jnp.where(evidence.mask_known, 1.0 / _MASK_SIGMA_MM**2, 0.0)
    place = nearest_to_rays(
        evidence.views,
        jnp.concatenate([origins.reshape(-1, 3), mask_origins]),
        jnp.concatenate([directions.reshape(-1, 3), to_mask.reshape(-1, 3)]),
        jnp.concatenate([weights.reshape(-1), mask_weights]),
    )
    return transforms.SE3.from_rotation_and_translation(rotation, place)


def _residuals(
    pose: transforms.SE3, evidence: _Gathered, expected: ExpectedPose
) -> Float[Array, " residual"]:
    """Compute the robust landmark and mask residuals over sigma, then the residuals of the
    prior."""
    by_landmark = robust(_landmark_residuals(pose, evidence)[0], _OUTLIER)
    middle = pose.apply(evidence.middle)[None]
    to_mask = jax.vmap(lambda view, pixel: cameras.reprojection_mm(view, middle, pixel[None]))(
        evidence.views, evidence.mask_centers
    )
    to_mask = jnp.where(evidence.mask_known[:, None, None], to_mask / _MASK_SIGMA_MM, 0.0)
    prior = _prior_residuals(pose, expected)
    return jnp.concatenate([by_landmark.reshape(-1), robust(to_mask, _OUTLIER).reshape(-1), prior])


def _landmark_residuals(
    pose: transforms.SE3, evidence: _Gathered
) -> tuple[Float[Array, "view landmark 2"], Bool[Array, "view landmark"]]:
    """Compute the landmark residuals of every view, and which landmarks count as swapped."""
    points = transforms.apply(pose, evidence.landmarks)

    def one_view(view: Camera, pixels: Float[Array, "n 2"], sigma: Float[Array, " n"]):
        return exchangeable_residuals(view, points, pixels, sigma, _OUTLIER)

    return jax.vmap(one_view)(evidence.views, evidence.pixels, evidence.sigma)


def _prior_residuals(pose: transforms.SE3, expected: ExpectedPose) -> Float[Array, "6"]:
    against_axes = pose.rotation().log() / jnp.array(_AXES_SIGMA)
    difference = expected.pose.inverse() @ pose
    off = jnp.concatenate([difference.rotation().log(), difference.translation()])
    sigma = jnp.sqrt(expected.sigma**2 + jnp.array(_START_SIGMA) ** 2)
    alone = jnp.concatenate([against_axes, jnp.zeros(3)])
    return jnp.where(expected.known, off / sigma, alone)


def _with_tier(pose: transforms.SE3, evidence: _Gathered, expected: ExpectedPose) -> Initialisation:
    """Assign the initialisation tier to a pose, from the evidence that agrees with it."""
    residuals, exchanged = _landmark_residuals(pose, evidence)
    squared = jnp.sum(residuals**2, axis=-1)
    agrees = jnp.isfinite(evidence.sigma) & (squared < _OUTLIER**2)
    num_common = jnp.sum(jnp.sum(agrees, axis=0) >= 2)
    num_distinct, num_seen = jnp.sum(jnp.any(agrees, axis=0)), jnp.sum(agrees)
    num_masks = jnp.sum(evidence.mask_known)
    placed = (num_masks >= 2) | (expected.known & (num_masks >= 1))
    tier = jnp.where(placed, 3, ABSTAINED)
    few = (num_distinct >= 2) & (num_masks >= 1)
    tier = jnp.where(few | (num_distinct >= 3), 2, tier)
    tier = jnp.where((num_distinct >= 3) & (num_seen >= 5), 1, tier)
    tier = jnp.where(num_common >= 3, 0, tier)
    # If only one of several views has detections, a neighbour must determine the depth.
    has_evidence = jnp.any(agrees, axis=1) | evidence.mask_known
    one_view = (jnp.sum(evidence.valid) >= 2) & (jnp.sum(has_evidence) < 2)
    tier = jnp.where(one_view, jnp.where(expected.known, jnp.maximum(tier, 3), ABSTAINED), tier)
    in_mm = residuals * jnp.where(agrees, evidence.sigma, 0.0)[..., None]
    residual = safe_norm(in_mm.reshape(-1)) / jnp.sqrt(2.0 * jnp.maximum(num_seen, 1))
    # A rotation larger than in any patient means that cameras or patient axes are wrong.
    upright = jnp.linalg.norm(pose.rotation().log()) < _MOST_TURNED
    finite = jnp.isfinite(_leaves_of(pose)).all()
    tier = jnp.where(finite & upright, tier, ABSTAINED).astype(jnp.int32)
    return Initialisation(pose, tier, num_seen.astype(jnp.int32), residual, agrees, exchanged)


def _leaves_of(pose: transforms.SE3) -> Float[Array, "7"]:
    """Concatenate quaternion and translation."""
    return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(pose)])
