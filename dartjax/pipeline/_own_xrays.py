"""Tasks from a user's own X-rays: one vertebra, from an initial pose estimate or from observations
in crops."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import data, registration, ssm, transforms
from dartjax.image import Radiograph
from dartjax.observations import LANDMARK_NAMES, Observations
from dartjax.pipeline._starts import first_angle_deg
from dartjax.pipeline._task import GIVEN, Task
from dartjax.registration import triangulate
from dartjax.transforms import SE3

_LANDMARK_SIGMA_MM = 3.0  # of the landmarks in an initial estimate
Start = SE3 | data.InitialEstimate  # T_world_vertebra, or a centre or landmarks


def task_from_radiographs(
    radiographs: Sequence[Radiograph], level: str, model: ssm.ShapeModel, initial: Start
) -> tuple[Task, list[str]]:
    """Make the task of one vertebra in calibrated X-rays, and warnings about its views. DataError
    for views that do not show it."""
    views = [radiograph.camera for radiograph in radiographs]
    start, landmarks = initial_pose(initial, model)
    center = start.apply(jnp.mean(model.mean_shape, axis=0))
    try:
        warnings = data.check_views(views, np.asarray(center, float))
    except data.DataError as error:
        raise data.DataError(f"{level}: {error}") from error
    seen = _observations(radiographs, center, landmarks)
    task = _task(radiographs, level, model, seen, start)
    return dataclasses.replace(task, tier=GIVEN), warnings


def task_from_observations(
    radiographs: Sequence[Radiograph], level: str, model: ssm.ShapeModel, seen: Observations
) -> Task:
    """Make the task of one vertebra from observations in crops. Its start, triangulated from the
    centres of the crops, is a placeholder for `initialise_tasks`."""
    num_views = len(seen.view_valid)
    sigma = jnp.where(seen.view_valid[:, None], 1.0, jnp.inf)
    middles = jnp.broadcast_to(seen.cameras.principal_point[:, None], (num_views, 1, 2))
    place = jnp.nan_to_num(triangulate(seen.cameras, middles, sigma).points[0])
    task = _task(radiographs, level, model, seen, SE3.from_translation(place))
    shared = (np.isfinite(np.asarray(seen.landmark_sigma)).sum(0) >= 2).sum()
    return dataclasses.replace(task, common_landmarks=int(shared))


def _task(
    radiographs: Sequence[Radiograph],
    level: str,
    model: ssm.ShapeModel,
    seen: Observations,
    start: SE3,
) -> Task:
    angle = first_angle_deg([radiograph.camera for radiograph in radiographs])
    return Task("xrays", level, 0, model, seen, start, truth=None, angle_deg=angle)


def initial_pose(
    initial: Start, model: ssm.ShapeModel
) -> tuple[SE3, Float[np.ndarray, "landmark 3"]]:
    """Compute the start pose, and the given landmarks in world mm with NaN for those not given."""
    points = np.full((len(LANDMARK_NAMES), 3), np.nan)
    if isinstance(initial, SE3):
        return initial, points
    for name, point in initial.landmarks_world.items():
        points[LANDMARK_NAMES.index(name)] = point
    known = np.isfinite(points).all(1)
    if known.sum() >= 3:
        mean = ssm.landmarks(model, model.mean_shape)
        weights = jnp.asarray(known, jnp.float32)
        target = jnp.asarray(np.nan_to_num(points), jnp.float32)
        return transforms.align_points(mean, target, weights), points
    assert initial.center_world is not None
    rotation = transforms.SO3.from_matrix(jnp.asarray(initial.axes_world, jnp.float32))
    center = jnp.asarray(initial.center_world, jnp.float32)
    return SE3.from_rotation_and_translation(rotation, center), points


def _observations(
    radiographs: Sequence[Radiograph],
    center: jax.Array,
    landmarks: Float[np.ndarray, "landmark 3"],
) -> Observations:
    """Crop the radiographs around the start, with the given landmarks and no masks."""
    crops = registration.crop_cameras(
        [radiograph.camera for radiograph in radiographs],
        center,
        width_mm=registration.CROP_WIDTH_MM,
        num_pixels=registration.CROP_PIXELS,
    )
    known = np.isfinite(landmarks).all(1)
    seen = registration.observe(
        radiographs,
        crops,
        landmarks_world=jnp.asarray(np.nan_to_num(landmarks), jnp.float32),
        landmark_sigma_mm=_LANDMARK_SIGMA_MM,
    )
    sigma = jnp.where(jnp.asarray(known)[None], seen.landmark_sigma, jnp.inf)
    return dataclasses.replace(seen, landmark_sigma=sigma)
