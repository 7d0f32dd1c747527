"""The joint fit of all vertebrae of a scene, as a method of the tables."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import registration, ssm, transforms
from dartjax.observations import Observations
from dartjax.pipeline._batch import run_cases
from dartjax.pipeline._task import DISTURBED, GIVEN, Task, indices_by_scene
from dartjax.registration import (
    RUNGS,
    FitOptions,
    Reconstruction,
    SpineOrder,
    fit_together,
    stack,
)

# A start of another tier may be far off: it is helped by its neighbours and helps none.
_RELIED_ON = (DISTURBED, GIVEN, RUNGS[0], RUNGS[1])
_MULTIPLE = 4  # scenes are filled up to a multiple of so many vertebrae: few programs serve all


class _Scene(NamedTuple):
    models: ssm.ShapeModel
    observations: Observations
    starts: transforms.SE3
    order: SpineOrder
    coefficients: jax.Array | None  # None: from the landmarks


def fit_jointly(
    options: FitOptions,
    tasks: Sequence[Task],
    *,
    step: Callable[[str], None],
    among_others: bool = True,
    begun: Sequence[Reconstruction] | None = None,
) -> tuple[list[Reconstruction], float]:
    """Answers for all tasks, fitted scene by scene (one subject in one set of views), and the
    seconds after compilation. A task with a poor start is fitted too, but no other relies on it;
    unless `among_others`, none relies on any. The fit goes on from the answers in `begun`, if any.

    The vertebrae of a scene are in the order of the tasks, from head to foot.
    """
    members = indices_by_scene(tasks)
    size = -(-max(map(len, members)) // _MULTIPLE) * _MULTIPLE
    given = [None] * len(tasks) if begun is None else begun
    scenes = [
        _scene([tasks[i] for i in each], [given[i] for i in each], size, among_others)
        for each in members
    ]
    found, seconds = run_cases(_program(options), *zip(*scenes, strict=True), step=step)
    answers: dict[int, Reconstruction] = {}
    for k, each in enumerate(members):
        for j, i in enumerate(each):
            answers[i] = jax.tree.map(lambda leaf, j=j: leaf[j], found[k])
    return [answers[i] for i in range(len(tasks))], seconds


def is_relied_on(task: Task) -> bool:
    """Whether the others of its scene are fitted with this vertebra beside them."""
    return task.tier in _RELIED_ON


@functools.cache
def _program(options: FitOptions) -> Callable[..., Reconstruction]:
    """The same object for the same options, so that it is compiled once."""

    def one(
        models: ssm.ShapeModel,
        observations: Observations,
        starts: transforms.SE3,
        order: SpineOrder,
        coefficients: jax.Array | None,
    ) -> Reconstruction:
        return fit_together(models, observations, starts, order, options, coefficients)

    return one


def _scene(
    tasks: Sequence[Task],
    begun: Sequence[Reconstruction | None],
    size: int,
    among_others: bool,
) -> _Scene:
    """Tasks of one scene, filled up with the last one, which then stands for nothing."""
    order = registration.order_of({task.level: task.model for task in tasks})
    missing = size - len(tasks)
    filled = [*tasks, *[tasks[-1]] * missing]
    answers = [*begun, *[begun[-1]] * missing]
    present = np.array([*map(is_relied_on, tasks), *[False] * missing]) & among_others
    along, tilt = (jnp.pad(each, (0, missing)) for each in (order.along, order.tilt))
    models, observations = (
        stack([getattr(task, key) for task in filled]) for key in ("model", "observations")
    )
    each = zip(filled, answers, strict=True)
    starts = stack([task.start if known is None else known.pose for task, known in each])
    shapes = [known.coefficients for known in answers if known is not None]
    order = SpineOrder(along, tilt, jnp.asarray(present))
    return _Scene(models, observations, starts, order, jnp.stack(shapes) if shapes else None)
