"""The fit to what a network makes of the X-rays, as a method of the tables."""

import functools
from collections.abc import Callable, Sequence

from dartjax import ssm, transforms
from dartjax.observations import Observations
from dartjax.registration import FitOptions, Reconstruction, fit, fit_landmarks, moved_pose
from dartjax.training import alone, isolate
from experiments import networks
from experiments.batches import columns_of, run_cases
from experiments.grading import Task

_ROUNDS = 2


def fit_isolated(
    folder: str,
    options: FitOptions,
    tasks: Sequence[Task],
    *,
    num_starts: int,
    seed: int,
    step: Callable[[str], None],
) -> tuple[list[Reconstruction], float]:
    """A `Fitter` with the network in a folder. The landmarks' fit is the first guess; each round
    isolates with the latest guess and fits from it. One start: `num_starts` and `seed` are not
    used."""
    del num_starts, seed
    return run_cases(_program(folder, options), *columns_of(tasks), step=step)


@functools.cache
def _program(folder: str, options: FitOptions, rounds: int = _ROUNDS):
    """The same object for the same arguments, so that it is compiled once."""
    net, params = networks.isolation(folder)

    def one(model: ssm.ShapeModel, seen: Observations, start: transforms.SE3) -> Reconstruction:
        first = fit_landmarks(model, seen, start)
        pose, coefficients = moved_pose(start, first), first.coefficients
        found = None
        for _ in range(rounds):
            isolated = isolate(net, params, model, seen, pose, coefficients)
            found = fit(model, alone(seen, isolated), pose, options, coefficients=coefficients)
            pose, coefficients = found.pose, found.coefficients
        assert found is not None
        return found

    return one
