"""Oracle ablation: the joint fit with one part of the ground truth.

It measures how much each part would help if it were perfect. The results are upper bounds.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dartjax import camera as cameras
from dartjax import simulation, ssm
from dartjax.pipeline._joint import fit_jointly
from dartjax.pipeline._task import Task
from dartjax.registration import FitOptions, Reconstruction

_TRUE_SIGMA_MM = 0.5  # standard deviation of ground-truth landmarks
_FROZEN = 1e-3  # factor that practically disables the modes of a ground-truth shape


def with_true_isolation(task: Task) -> Task:
    """Replace the X-rays by ones that show only this vertebra, as perfect isolation would."""
    assert task.truth is not None
    seen = simulation.isolated(task.truth, task.observations)
    return dataclasses.replace(task, observations=seen)


def with_true_masks(task: Task) -> Task:
    """Replace the masks by the projections of the ground-truth label."""
    assert task.truth is not None
    seen = task.observations
    crops = [jax.tree.map(lambda leaf, k=k: leaf[k], seen.cameras) for k in range(len(seen.masks))]
    masks = jnp.asarray(simulation.true_masks(task.truth, crops), task.observations.masks.dtype)
    return _with_observed(task, masks=masks)


def with_true_landmarks(task: Task) -> Task:
    """Replace the landmarks by their ground truth, seen in every view. Unchanged without a ground
    truth."""
    assert task.truth is not None
    if task.truth.landmarks is None:
        return task
    pixels = jax.vmap(cameras.project, (0, None))(task.observations.cameras, task.truth.landmarks)
    sigma = jnp.full(pixels.shape[:2], _TRUE_SIGMA_MM)
    return _with_observed(task, landmarks=pixels, landmark_sigma=sigma)


def with_true_start(task: Task) -> Task:
    """Replace the start by the pose of the best fit to the true surface."""
    assert task.truth is not None
    return dataclasses.replace(task, start=task.truth.oracle.pose)


def with_true_shape(task: Task) -> Task:
    """Replace the mean shape by the best fit to the true surface and disable the modes.
    `fit_with_truth` converts the result to the modes of the task's own model."""
    assert task.truth is not None
    shape = ssm.instance(task.model, task.truth.oracle.coefficients)
    model = dataclasses.replace(task.model, mean_shape=shape, modes=_FROZEN * task.model.modes)
    return dataclasses.replace(task, model=model)


def fit_with_truth(
    reveal: Callable[[Task], Task],
    options: FitOptions,
    tasks: Sequence[Task],
    *,
    step: Callable[[str], None],
) -> tuple[list[Reconstruction], float]:
    """Fit the tasks jointly after `reveal`, one of the `with_true_...` functions, has put in its
    part of the ground truth (a `Fitter`)."""
    revealed = [reveal(task) for task in tasks]
    found, seconds = fit_jointly(options, revealed, step=step)
    results = [in_own_modes(*each) for each in zip(tasks, revealed, found, strict=True)]
    return results, seconds


def in_own_modes(task: Task, revealed: Task, found: Reconstruction) -> Reconstruction:
    """Convert a result to the coefficients of the task's own model."""
    if revealed.model is task.model:
        return found
    assert task.truth is not None
    best = jnp.asarray(task.truth.oracle.coefficients)
    return dataclasses.replace(found, coefficients=best + _FROZEN * found.coefficients)


def _with_observed(task: Task, **known: jax.Array) -> Task:
    return dataclasses.replace(task, observations=dataclasses.replace(task.observations, **known))
