"""The joint fit told one part of the truth at a time: which module, if it were perfect, would help
most. Bounds, not methods: all of them know what nobody knows."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from dartjax import camera as cameras
from dartjax import pipeline, simulation, ssm
from dartjax.pipeline import Task
from dartjax.registration import FitOptions, Reconstruction

_KNOWN_MM = 0.5  # standard deviation given to landmarks that are right
_HELD = 1e-3  # factor on the modes of a shape that is right


def with_true_masks(task: Task) -> Task:
    """The masks are the projections of the label."""
    assert task.truth is not None
    seen = task.observations
    crops = [jax.tree.map(lambda leaf, k=k: leaf[k], seen.cameras) for k in range(len(seen.masks))]
    masks = jnp.asarray(simulation.true_masks(task.truth, crops), task.observations.masks.dtype)
    return _seeing(task, masks=masks)


def with_true_landmarks(task: Task) -> Task:
    """Every landmark is seen in every view, where it is. Unchanged where it is not known."""
    assert task.truth is not None
    if task.truth.landmarks is None:
        return task
    pixels = jax.vmap(cameras.project, (0, None))(task.observations.cameras, task.truth.landmarks)
    sigma = jnp.full(pixels.shape[:2], _KNOWN_MM)
    return _seeing(task, landmarks=pixels, landmark_sigma=sigma)


def with_true_start(task: Task) -> Task:
    """The fit begins at the pose of the best fit to the true surface."""
    assert task.truth is not None
    return dataclasses.replace(task, start=task.truth.oracle.pose)


def with_true_shape(task: Task) -> Task:
    """The mean shape is the best fit's, and the modes bring nothing; see `_in_own_modes`."""
    assert task.truth is not None
    shape = ssm.instance(task.model, task.truth.oracle.coefficients)
    model = dataclasses.replace(task.model, mean_shape=shape, modes=_HELD * task.model.modes)
    return dataclasses.replace(task, model=model)


def _seeing(task: Task, **known: jax.Array) -> Task:
    return dataclasses.replace(task, observations=dataclasses.replace(task.observations, **known))


ISOLATION = "true isolation"
LIMITS: Mapping[str, Callable[[Task], Task]] = {
    ISOLATION: pipeline.with_true_isolation,
    "true masks": with_true_masks,
    "true landmarks": with_true_landmarks,
    "true start": with_true_start,
    "true shape": with_true_shape,
}


def fit_told(
    tell: Callable[[Task], Task],
    options: FitOptions,
    tasks: Sequence[Task],
    *,
    step: Callable[[str], None],
) -> tuple[list[Reconstruction], float]:
    """A `Fitter`: the joint fit of what `tell` makes of the tasks."""
    told = [tell(task) for task in tasks]
    found, seconds = pipeline.fit_jointly(options, told, step=step)
    return [_in_own_modes(*each) for each in zip(tasks, told, found, strict=True)], seconds


def _in_own_modes(task: Task, told: Task, found: Reconstruction) -> Reconstruction:
    """The answer in the coefficients of the task's own model."""
    if told.model is task.model:
        return found
    assert task.truth is not None
    best = jnp.asarray(task.truth.oracle.coefficients)
    return dataclasses.replace(found, coefficients=best + _HELD * found.coefficients)
