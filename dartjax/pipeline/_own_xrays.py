"""One vertebra in a user's own X-rays, from an initial estimate of where it is."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import data, registration, simulation, ssm, transforms
from dartjax.image import Radiograph
from dartjax.observations import LANDMARK_NAMES, Observations
from dartjax.pipeline._task import Task

_LANDMARK_SIGMA_MM = 3.0  # of the landmarks that the initial estimate names


def task_from_radiographs(
    radiographs: Sequence[Radiograph],
    level: str,
    model: ssm.ShapeModel,
    initial: data.InitialGuess,
) -> tuple[Task, list[str]]:
    """The task of one vertebra in calibrated X-rays, and warnings about its views. DataError for
    views that do not show it."""
    views = [radiograph.camera for radiograph in radiographs]
    start, landmarks = initial_pose(initial, model)
    center = start.apply(jnp.mean(model.mean_shape, axis=0))
    warnings = data.check_views(views, np.asarray(center))
    task = Task(
        subject="xrays",
        level=level,
        pair=0,
        model=model,
        observations=_observations(radiographs, center, landmarks),
        start=start,
        truth=None,
        angle_deg=simulation.pair_angles_deg(views)[0] if len(views) > 1 else 0.0,
        tier="given",
    )
    return task, warnings


def initial_pose(
    initial: data.InitialGuess, model: ssm.ShapeModel
) -> tuple[transforms.SE3, Float[np.ndarray, "landmark 3"]]:
    """Start pose, and the given landmarks in world mm with NaN for those not given."""
    points = np.full((len(LANDMARK_NAMES), 3), np.nan)
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
    return transforms.SE3.from_rotation_and_translation(rotation, center), points


def _observations(
    radiographs: Sequence[Radiograph],
    center: jax.Array,
    landmarks: Float[np.ndarray, "landmark 3"],
) -> Observations:
    """Crops around the start, with the given landmarks and no masks."""
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
