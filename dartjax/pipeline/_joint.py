"""Joint fit of all vertebrae of each scene of a run."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import ssm, transforms
from dartjax.observations import Observations
from dartjax.pipeline._batch import run_cases
from dartjax.pipeline._task import CURVE, DISTURBED, GIVEN, Task, indices_by_scene, spine_order
from dartjax.registration import (
    TIERS,
    FitOptions,
    Reconstruction,
    SpineOrder,
    fit_together,
    stack,
)

# Starts of lower tiers may be far from the truth: neighbours influence such a vertebra, but it does
# not influence them.
_RELIABLE_TIERS = (DISTURBED, GIVEN, CURVE, TIERS[0], TIERS[1])
_MULTIPLE = 4  # scenes are padded to a multiple of so many vertebrae, so few programs are compiled


class _Scene(NamedTuple):
    models: ssm.ShapeModel
    observations: Observations
    starts: transforms.SE3
    order: SpineOrder
    coefficients: jax.Array | None  # initial shapes; None: from the landmarks


def fit_jointly(
    options: FitOptions,
    tasks: Sequence[Task],
    *,
    step: Callable[[str], None],
    with_neighbours: bool = True,
    initial: Sequence[Reconstruction] | None = None,
) -> tuple[list[Reconstruction], float]:
    """Fit the vertebrae of each scene (one subject in one set of views) jointly; return the results
    in the order of the tasks, and the seconds after compilation.

    A vertebra with a start of a low initialisation tier does not influence its neighbours; without
    `with_neighbours` no vertebra influences another. The fit continues from the results in
    `initial`, if given. The tasks of a scene are in order from head to foot.
    """
    members = indices_by_scene(tasks)
    size = -(-max(map(len, members)) // _MULTIPLE) * _MULTIPLE
    given = [None] * len(tasks) if initial is None else initial
    scenes = [
        _scene([tasks[i] for i in indices], [given[i] for i in indices], size, with_neighbours)
        for indices in members
    ]
    found, seconds = run_cases(_program(options), *zip(*scenes, strict=True), step=step)
    results: dict[int, Reconstruction] = {}
    for k, indices in enumerate(members):
        for j, i in enumerate(indices):
            results[i] = jax.tree.map(lambda leaf, j=j: leaf[j], found[k])
    return [results[i] for i in range(len(tasks))], seconds


def is_relied_on(task: Task) -> bool:
    """Return whether the start is reliable enough for this vertebra to influence its neighbours."""
    return task.tier in _RELIABLE_TIERS


@functools.cache
def _program(options: FitOptions) -> Callable[..., Reconstruction]:
    """Make the joint fit of one scene; cached per options, so that it is compiled once."""

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
    initial: Sequence[Reconstruction | None],
    size: int,
    with_neighbours: bool,
) -> _Scene:
    """Stack the tasks of one scene, padded with absent copies of the last task."""
    missing = size - len(tasks)
    padded = [*tasks, *[tasks[-1]] * missing]
    results = [*initial, *[initial[-1]] * missing]
    present = np.array([*map(is_relied_on, tasks), *[False] * missing]) & with_neighbours
    models, observations = (
        stack([getattr(task, key) for task in padded]) for key in ("model", "observations")
    )
    starts = stack(
        [
            task.start if result is None else result.pose
            for task, result in zip(padded, results, strict=True)
        ]
    )
    shapes = [result.coefficients for result in results if result is not None]
    order = dataclasses.replace(spine_order(padded), present=jnp.asarray(present))
    return _Scene(models, observations, starts, order, jnp.stack(shapes) if shapes else None)
