"""The fit to what a network makes of the X-rays, as a method of the tables."""

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
    """A `Fitter` with the network in a folder: the joint fit by `first` is the first guess; each
    round isolates every vertebra with the latest guess and goes on from it by `then`."""
    run = functools.partial(fit_jointly, step=step)
    found, seconds = run(first, tasks)
    for _ in range(_ROUNDS):
        columns = [task.model for task in tasks], [task.observations for task in tasks]
        seen, more = run_cases(_isolating(folder), *columns, found, step=step)
        each = zip(tasks, seen, strict=True)
        shown = [dataclasses.replace(task, observations=own) for task, own in each]
        found, fitted = run(then, shown, begun=found)
        seconds += more + fitted
    return found, seconds


@functools.cache
def _isolating(folder: str):
    """The same object for the same folder, so that it is compiled once."""
    net, params = isolation_network(folder)

    def one(model: ssm.ShapeModel, seen: Observations, guess: Reconstruction) -> Observations:
        return isolated_observations(
            seen, isolate_vertebra(net, params, model, seen, guess.pose, guess.coefficients)
        )

    return one
