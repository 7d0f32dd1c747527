"""The fits that see each vertebra alone, as methods of the tables."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dartjax import data, ssm, transforms
from dartjax.models import ISOLATION_PRESETS, IsolationNet, no_hint
from dartjax.observations import Observations
from dartjax.registration import (
    FitOptions,
    Reconstruction,
    fit,
    fit_landmarks,
    moved_pose,
)
from dartjax.training import alone, isolate
from experiments.batches import columns_of, run_cases
from experiments.grading import Task
from experiments.scene import CROP_PIXELS

_ROUNDS = 2


def check(folder: str, subjects: Sequence[str]) -> None:
    """DataError if the weights are missing, damaged, or have seen one of the subjects."""
    network(folder)
    seen = data.read_card(folder)["subjects_included"]
    if leaked := [subject for subject in subjects if data.same_subject(subject, seen)]:
        raise data.DataError(
            f"the isolation network in {folder} was trained on {', '.join(leaked)}: leave "
            "--isolation out, or reconstruct other subjects"
        )


@functools.cache
def network(folder: str):
    """The network and its parameters. DataError if they are missing or damaged."""
    net = IsolationNet(ISOLATION_PRESETS[data.read_card(folder)["preset"]])
    image = jnp.zeros((CROP_PIXELS, CROP_PIXELS))
    like = jax.eval_shape(net.init, jax.random.key(0), image, no_hint(image))["params"]
    params, _ = data.load_weights(folder, like)
    return net, params


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
    net, params = network(folder)

    def one(model: ssm.ShapeModel, seen: Observations, start: transforms.SE3) -> Reconstruction:
        first = fit_landmarks(model, seen, start)
        pose, coefficients = moved_pose(start, first), first.coefficients
        found = None
        for _ in range(rounds):
            isolated = isolate(net, params, model, seen, pose, coefficients)
            found = fit(model, alone(seen, isolated), pose, options)
            pose, coefficients = found.pose, found.coefficients
        assert found is not None
        return found

    return one
