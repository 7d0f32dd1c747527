"""Fit to images in which a network has isolated the vertebra."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from dartjax import ssm
from dartjax.observations import Observations
from dartjax.pipeline._batch import run_cases
from dartjax.pipeline._joint import fit_jointly
from dartjax.pipeline._networks import isolation_network
from dartjax.pipeline._task import Task
from dartjax.registration import FitOptions, Reconstruction
from dartjax.training import isolate_vertebra, isolated_observations

_ROUNDS = 2


def fit_isolated(
    folder: str,
    first: FitOptions,
    then: FitOptions,
    tasks: Sequence[Task],
    *,
    step: Callable[[str], None],
) -> tuple[list[Reconstruction], float]:
    """Fit with the isolation network in a folder (a `Fitter`): the joint fit with options `first`
    gives the initial estimates; each of two rounds isolates every vertebra with the latest
    estimate and refines the joint fit on these images with options `then`."""
    run = functools.partial(fit_jointly, step=step)
    found, seconds = run(first, tasks)
    for _ in range(_ROUNDS):
        columns = [task.model for task in tasks], [task.observations for task in tasks]
        isolated, isolation_seconds = run_cases(_isolation(folder), *columns, found, step=step)
        isolated_tasks = [
            dataclasses.replace(task, observations=observations)
            for task, observations in zip(tasks, isolated, strict=True)
        ]
        found, fit_seconds = run(then, isolated_tasks, initial=found)
        seconds += isolation_seconds + fit_seconds
    return found, seconds


@functools.cache
def _isolation(folder: str):
    """Make the isolating function; cached per folder, so that it is compiled once."""
    net, params = isolation_network(folder)

    def one(model: ssm.ShapeModel, seen: Observations, estimate: Reconstruction) -> Observations:
        return isolated_observations(
            seen, isolate_vertebra(net, params, model, seen, estimate.pose, estimate.coefficients)
        )

    return one
