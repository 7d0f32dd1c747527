"""Oracle ablation: the joint fit with one part of the ground truth.

It says which part, if it were perfect, would help most. These are bounds, not methods: all of
them know what nobody knows.
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

_KNOWN_MM = 0.5  # standard deviation given to landmarks that are right
_HELD = 1e-3  # factor on the modes of a shape that is right


def with_true_isolation(task: Task) -> Task:
    """The X-rays show nothing but this vertebra: what perfect isolation gives."""
    assert task.truth is not None
    seen = simulation.isolated(task.truth, task.observations)
    return dataclasses.replace(task, observations=seen)


def with_true_masks(task: Task) -> Task:
    """The masks are the projections of the label."""
    assert task.truth is not None
    seen = task.observations
    crops = [jax.tree.map(lambda leaf, k=k: leaf[k], seen.cameras) for k in range(len(seen.masks))]
    masks = jnp.asarray(simulation.true_masks(task.truth, crops), task.observations.masks.dtype)
    return _with_observed(task, masks=masks)


def with_true_landmarks(task: Task) -> Task:
    """Every landmark is seen in every view, where it is. Unchanged where it is not known."""
    assert task.truth is not None
    if task.truth.landmarks is None:
        return task
    pixels = jax.vmap(cameras.project, (0, None))(task.observations.cameras, task.truth.landmarks)
    sigma = jnp.full(pixels.shape[:2], _KNOWN_MM)
    return _with_observed(task, landmarks=pixels, landmark_sigma=sigma)


def with_true_start(task: Task) -> Task:
    """The fit begins at the pose of the best fit to the true surface."""
    assert task.truth is not None
    return dataclasses.replace(task, start=task.truth.oracle.pose)


def with_true_shape(task: Task) -> Task:
    """The mean shape is the best fit's, and the modes bring nothing; `fit_with_truth` gives the
    answer in the modes of the task's own model."""
    assert task.truth is not None
    shape = ssm.instance(task.model, task.truth.oracle.coefficients)
    model = dataclasses.replace(task.model, mean_shape=shape, modes=_HELD * task.model.modes)
    return dataclasses.replace(task, model=model)


def fit_with_truth(
    reveal: Callable[[Task], Task],
    options: FitOptions,
    tasks: Sequence[Task],
    *,
    step: Callable[[str], None],
) -> tuple[list[Reconstruction], float]:
    """A `Fitter`: the joint fit of the tasks after `reveal`, one of the functions above."""
    revealed = [reveal(task) for task in tasks]
    found, seconds = fit_jointly(options, revealed, step=step)
    return [in_own_modes(*each) for each in zip(tasks, revealed, found, strict=True)], seconds


def in_own_modes(task: Task, revealed: Task, found: Reconstruction) -> Reconstruction:
    """The answer in the coefficients of the task's own model."""
    if revealed.model is task.model:
        return found
    assert task.truth is not None
    best = jnp.asarray(task.truth.oracle.coefficients)
    return dataclasses.replace(found, coefficients=best + _HELD * found.coefficients)


def _with_observed(task: Task, **known: jax.Array) -> Task:
    return dataclasses.replace(task, observations=dataclasses.replace(task.observations, **known))
