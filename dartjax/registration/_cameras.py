"""Refinement of the relative camera poses from the vertebrae that the views show.

This is bundle adjustment (Triggs et al., Vision Algorithms 2000) with rigid bodies of known shape
instead of free points: all vertebrae of a scene share the cameras and together determine the poses
of the C-arm. The first view is fixed and defines the world frame. X-rays cannot distinguish a
larger patient from a patient nearer to the source, so only the priors determine the scale.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dartjax import camera as cameras
from dartjax import transforms
from dartjax._least_squares import levenberg_marquardt
from dartjax._numerics import safe_norm
from dartjax._types import Coefficients, Point, Points, Scalar
from dartjax.camera import Camera
from dartjax.observations import Observations, without_ignored
from dartjax.registration._landmark_residuals import centroid_of, exchangeable_residuals, robust
from dartjax.ssm import ShapeModel, instance, landmarks

CAMERA_STATUS: dict[int, str] = {
    0: "refined",
    1: "the result is not finite: cameras unchanged",
    2: "fewer than two views: cameras unchanged",
    3: "too few landmarks in the first view or in all other views: cameras unchanged",
    4: "a camera moved by more than three standard deviations of its prior",
    5: "landmarks and masks agree with the given cameras: cameras unchanged",
}
MIN_LANDMARKS = 6  # of all vertebrae in one view; the camera of a view with fewer is fixed
# Widths of the robust kernel, in standard deviations: wide first, then outliers are suppressed.
_WIDTHS = (50.0, 10.0, 3.0)
_FAR = 3.0  # prior standard deviations
# Units of a vertebra's step, and the standard deviation of its weak prior in these units.
_TURN_UNIT, _SHIFT_UNIT_MM = 0.05, 2.5
_STEP_SIGMA = 8.0


class CameraPrior(eqx.Module):
    """Prior of `refine_cameras`: errors of the given cameras, of the shapes and of the masks."""

    rotation_deg: Scalar | float = 3.0  # rms angle of a C-arm's turn about the middle of the scene
    translation_mm: Scalar | float = 10.0  # rms length of its shift
    # Standard deviations per axis.
    shape_mm: Scalar | float = 3.0  # landmark error that comes from the error of the shape
    mask_mm: Scalar | float = 6.0  # centroid of a mask to the centroid of the projected vertices
    size: Scalar | float = 0.08  # common size factor of all vertebrae, as a ratio to the shapes
    # Least decrease of the sum for each view that moves: the 95 % quantile of chi squared with 6
    # degrees of freedom. With 0 the cameras always move.
    evidence: Scalar | float = 12.6


class RefinedCameras(eqx.Module):
    """Result of `refine_cameras`: motion of every C-arm, poses of the vertebrae, status.

    The leading axis of `motions` is the view (the first is the identity), of `poses` the vertebra.
    `residual_mm` is the median distance between detected and reprojected landmarks, in mm at the
    vertebra.
    """

    motions: transforms.SE3  # of the C-arm in the world; see `moved_cameras`
    poses: transforms.SE3  # T_world_vertebra
    residual_mm: Scalar
    status: Int[Array, ""]  # see CAMERA_STATUS


def carm_motion(
    pivot: Point, rotation: Float[Array, "3"], translation: Float[Array, "3"]
) -> transforms.SE3:
    """Make the rigid motion that turns the world about `pivot` by the rotation vector (rad), then
    shifts it by `translation` (mm)."""
    turn = transforms.SO3.exp(rotation)
    return transforms.SE3.from_rotation_and_translation(
        turn, pivot + translation - turn.apply(pivot)
    )


def moved_cameras(views: Camera, motions: transforms.SE3) -> Camera:
    """Move the C-arm of each view (leading axis) in the world: T_world_camera becomes
    motion @ T_world_camera. Intrinsics are unchanged, so the function applies to crops and to whole
    radiographs."""

    def moved(view: Camera, motion: transforms.SE3) -> Camera:
        return dataclasses.replace(
            view, camera_from_world=view.camera_from_world @ motion.inverse()
        )

    return jax.vmap(moved)(views, motions)


def with_moved_cameras(observations: Observations, motions: transforms.SE3) -> Observations:
    """Replace the cameras of one vertebra's observations by the moved cameras."""
    return dataclasses.replace(observations, cameras=moved_cameras(observations.cameras, motions))


def refine_cameras(
    model: ShapeModel,
    observations: Observations,
    poses: transforms.SE3,
    coefficients: Float[Array, "vertebra mode"] | None = None,
    prior: CameraPrior | None = None,
    *,
    num_steps: int = 8,
) -> RefinedCameras:
    """Refine the cameras of views 2 to K and the poses of V vertebrae from landmarks and masks.

    Every argument but `prior` has a leading vertebra axis; all vertebrae must share their K
    cameras (crops of the same radiographs). `poses` are initial estimates, `coefficients` the
    shapes (default: mean shapes). The unknowns are a motion of each C-arm about the middle of the
    scene, a step of each vertebra, and one size factor for all vertebrae. The cost is

      sum rho(|r|^2 / (sigma^2 + shape_mm^2)) + sum rho(|m|^2 / mask_mm^2) + |x|^2,

    with the reprojection errors r of the landmarks (a left/right pair may be swapped in a view),
    the errors m of the mask centroids, and the unknowns x over their standard deviations (motions
    and log size: those of the prior; steps: 0.4 rad and 20 mm). The kernel is
    rho(s) = s / (1 + s / w^2) with w = 50, 10, then 3, and `num_steps` of Levenberg-Marquardt for
    each w. The cost is also minimised with fixed cameras: the cameras move only if the cost falls
    by more than the threshold `evidence` for each moving view. Never raises: read `status`. With
    one view or too few landmarks the cameras are unchanged.

    The distance of the scene from the first source is determined only by the other views, to
    about the `translation_mm` of their prior.
    """
    prior = CameraPrior() if prior is None else prior
    if coefficients is None:
        coefficients = jnp.zeros(model.modes.shape[:2])
    observations = jax.vmap(without_ignored)(observations)
    scene = _gather(model, observations, coefficients, prior)
    problem = _Adjustment(scene, poses, jnp.mean(poses.translation(), axis=0), prior)
    movable = _movable(scene.sigma)
    held = jnp.zeros_like(movable)
    (x_held, x_free), (sum_held, sum_free) = jax.vmap(lambda m: problem.solve(m, num_steps))(
        jnp.stack([held, movable])
    )
    needed = sum_held - sum_free > prior.evidence * jnp.sum(movable)
    x = jnp.where(needed, x_free, x_held)
    motions, moved = problem.unravel(x, movable & needed)
    finite = jnp.isfinite(moved.parameters()).all() & jnp.isfinite(motions.parameters()).all()
    finite = finite & jnp.isfinite(sum_held) & jnp.isfinite(sum_free)
    near = jnp.all(jnp.abs(x[: problem.num_camera_unknowns]) <= _FAR)
    status = _status(finite, near, needed, movable, observations.view_valid[0])
    given = transforms.SE3.identity((len(movable),)), poses
    kept_motions, kept_poses = jax.tree.map(
        lambda new, old: jnp.where((status >= 1) & (status <= 3), old, new), (motions, moved), given
    )
    return RefinedCameras(kept_motions, kept_poses, problem.median_mm(x, motions, moved), status)


class _Scene(eqx.Module):
    """Detections and model points of all vertebrae: leading axes (vertebra, view)."""

    views: Camera
    pixels: Float[Array, "vertebra view landmark 2"]
    sigma: Float[Array, "vertebra view landmark"]  # mm; inf = not seen
    mask_centers: Float[Array, "vertebra view 2"]
    mask_known: Bool[Array, "vertebra view"]
    landmarks: Float[Array, "vertebra landmark 3"]  # of the shape, vertebra frame
    middles: Float[Array, "vertebra 3"]  # of its vertices


class _Adjustment(eqx.Module):
    """Least-squares problem of `refine_cameras`. Unknowns: six numbers per camera, in standard
    deviations of the prior; six per vertebra; the log of the size, in standard deviations."""

    scene: _Scene
    poses: transforms.SE3  # initial estimates
    pivot: Point
    prior: CameraPrior

    @property
    def num_camera_unknowns(self) -> int:
        """Number of camera unknowns; they come first in the vector."""
        return 6 * self.scene.sigma.shape[1]

    def unravel(
        self, x: Float[Array, " unknown"], moving: Bool[Array, " view"]
    ) -> tuple[transforms.SE3, transforms.SE3]:
        """Convert the unknowns to motions of the cameras and poses of the vertebrae."""
        by_camera, by_vertebra = jnp.split(x[:-1].reshape(-1, 6), [len(moving)])
        by_camera = jnp.where(moving[:, None], by_camera, 0.0)
        motions = jax.vmap(lambda step: _motion(self.pivot, step, self.prior))(by_camera)
        return motions, jax.vmap(_stepped)(self.poses, by_vertebra)

    def sized(self, x: Float[Array, " unknown"]) -> _Scene:
        """Scale every vertebra about its own origin by the size factor in the unknowns."""
        size, scene = jnp.exp(x[-1] * self.prior.size), self.scene
        return dataclasses.replace(
            scene, landmarks=size * scene.landmarks, middles=size * scene.middles
        )

    def residual(
        self, x: Float[Array, " unknown"], moving: Bool[Array, " view"], width: Scalar
    ) -> Float[Array, " residual"]:
        """Compute all residuals whose squares form the cost."""
        to_scene = _scene_residuals(self.sized(x), *self.unravel(x, moving), self.prior)
        seen = [robust(r, width).reshape(-1) for r in to_scene]
        by_camera, by_vertebra, size = jnp.split(x, [self.num_camera_unknowns, len(x) - 1])
        return jnp.concatenate([*seen, by_camera, by_vertebra / _STEP_SIGMA, size])

    def solve(
        self, moving: Bool[Array, " view"], num_steps: int
    ) -> tuple[Float[Array, " unknown"], Scalar]:
        """Minimise the cost; return the unknowns and the cost at the narrowest kernel."""

        def stage(x: Float[Array, " unknown"], width: Scalar):
            def at_width(x: Float[Array, " unknown"]) -> Float[Array, " residual"]:
                return self.residual(x, moving, width)

            return levenberg_marquardt(at_width, x, num_steps=num_steps).x, None

        num_vertebrae, num_views = self.scene.sigma.shape[:2]
        start = jnp.zeros(6 * (num_views + num_vertebrae) + 1)
        x, _ = jax.lax.scan(stage, start, jnp.array(_WIDTHS))
        return x, jnp.sum(self.residual(x, moving, jnp.asarray(_WIDTHS[-1])) ** 2)

    def median_mm(
        self, x: Float[Array, " unknown"], motions: transforms.SE3, poses: transforms.SE3
    ) -> Scalar:
        """Compute the median distance between detected and reprojected landmarks, mm."""
        sigma = self.scene.sigma
        over_sigma, _ = _scene_residuals(self.sized(x), motions, poses, self.prior)
        in_mm = safe_norm(over_sigma) * jnp.where(jnp.isfinite(sigma), sigma, 1.0)
        return jnp.nanmedian(jnp.where(jnp.isfinite(sigma), in_mm, jnp.nan))


def _gather(
    model: ShapeModel,
    observations: Observations,
    coefficients: Float[Array, "vertebra mode"],
    prior: CameraPrior,
) -> _Scene:
    seen = jnp.isfinite(observations.landmark_sigma)
    sigma = jnp.where(seen, observations.landmark_sigma, 1.0)
    sigma = jnp.where(seen, jnp.hypot(sigma, prior.shape_mm), jnp.inf)
    centers, masked = jax.vmap(jax.vmap(centroid_of))(observations.masks)

    def points(own: ShapeModel, b: Coefficients) -> tuple[Points, Point]:
        vertices = instance(own, b)
        return landmarks(own, vertices), jnp.mean(vertices, axis=0)

    on_shape, middles = jax.vmap(points)(model, coefficients)
    return _Scene(
        views=observations.cameras,
        pixels=observations.landmarks,
        sigma=sigma,
        mask_centers=centers,
        mask_known=observations.view_valid & masked,
        landmarks=on_shape,
        middles=middles,
    )


def _movable(sigma: Float[Array, "vertebra view landmark"]) -> Bool[Array, " view"]:
    """Return which views may move: all but the first with at least MIN_LANDMARKS landmarks. No
    view may move if the first has fewer."""
    enough = jnp.sum(jnp.isfinite(sigma), axis=(0, 2)) >= MIN_LANDMARKS
    return enough & enough[0] & (jnp.arange(len(enough)) > 0)


def _motion(pivot: Point, step: Float[Array, "6"], prior: CameraPrior) -> transforms.SE3:
    turn = step[:3] * jnp.deg2rad(prior.rotation_deg) / jnp.sqrt(3.0)
    return carm_motion(pivot, turn, step[3:] * prior.translation_mm / jnp.sqrt(3.0))


def _stepped(pose: transforms.SE3, step: Float[Array, "6"]) -> transforms.SE3:
    return transforms.perturb(pose, step[:3] * _TURN_UNIT, step[3:] * _SHIFT_UNIT_MM)


def _scene_residuals(
    scene: _Scene, motions: transforms.SE3, poses: transforms.SE3, prior: CameraPrior
) -> tuple[Float[Array, "vertebra view landmark 2"], Float[Array, "vertebra view 2"]]:
    """Compute the residuals of landmarks and mask centroids: in-plane mm over their standard
    deviations."""

    def one_view(view, pixels, sigma, center, known, points, middle):
        to_mask = cameras.reprojection_mm(view, middle[None], center[None])[0] / prior.mask_mm
        landmarks, _ = exchangeable_residuals(view, points, pixels, sigma, _WIDTHS[-1])
        return landmarks, jnp.where(known, to_mask, 0.0)

    def one(own: _Scene, pose: transforms.SE3):
        views = moved_cameras(own.views, motions)
        points, middle = transforms.apply(pose, own.landmarks), pose.apply(own.middles)
        return jax.vmap(one_view, in_axes=(0, 0, 0, 0, 0, None, None))(
            views, own.pixels, own.sigma, own.mask_centers, own.mask_known, points, middle
        )

    return jax.vmap(one)(scene, poses)


def _status(
    finite: Bool[Array, ""],
    near: Bool[Array, ""],
    needed: Bool[Array, ""],
    movable: Bool[Array, " view"],
    view_valid: Bool[Array, " view"],
) -> Int[Array, ""]:
    status = jnp.where(near, 0, 4)
    status = jnp.where(needed, status, 5)
    status = jnp.where(jnp.any(movable), status, 3)
    status = jnp.where(jnp.sum(view_valid) > 1, status, 2)
    return jnp.where(finite, status, 1).astype(jnp.int32)
