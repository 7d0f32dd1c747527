"""The rows of a reconstruction table: every method with the same start and evidence."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from dartjax import ssm, transforms
from dartjax.observations import Observations
from dartjax.pipeline._batch import fit_arguments, run_cases
from dartjax.pipeline._isolated import fit_isolated
from dartjax.pipeline._joint import fit_jointly
from dartjax.pipeline._learned import fit_faithful, fit_ours
from dartjax.pipeline._oracle import with_true_isolation
from dartjax.pipeline._task import Estimate, Task, estimate_of, flag_unusual_sizes
from dartjax.registration import (
    ALONE,
    FIT_OPTIONS,
    OURS,
    REFINED_ALONE,
    Reconstruction,
    fit,
    fit_from_starts,
    fit_landmarks,
    moved_pose,
)

LEARNED = "isolated"  # the same with what a network makes of the X-rays, see `isolation`
FAITHFUL = "faithful"  # a learned similarity and nothing else, as in Spine-DART
SUM = "ours"  # all together, with the learned similarity as one more term
# The network whose weights a method needs.
NEEDED_NETWORK = {LEARNED: "isolation", FAITHFUL: "similarity", SUM: "similarity"}
ISOLATED = "true isolated DRR"  # the same again, with nothing else in the X-rays: a bound
# What --recipe takes, and the name of its row. Every other one is a baseline, shown in this order
# between the start and the headline.
RECIPES = {
    "landmarks": "landmarks",
    "landmarks+masks": "landmarks+masks",
    "ncc": "ncc",
    "xvr": "xvr",
    "alone": ALONE,
    "classical": OURS,
    "isolated": LEARNED,
    "faithful": FAITHFUL,
    "ours": SUM,
}


@runtime_checkable
class Fitter(Protocol):
    """Answers for tasks of one subject, in their order, and the seconds it took in all without
    what was compiled."""

    def __call__(
        self, tasks: Sequence[Task], *, step: Callable[[str], None]
    ) -> tuple[Sequence[Reconstruction], float]:
        """See the class."""
        ...


# The methods that fit every vertebra by itself.
FITTED_ALONE = ("landmarks", *(name for name in FIT_OPTIONS if name != OURS), ISOLATED)
CaseFit = Callable[
    [ssm.ShapeModel, Observations, transforms.SE3, PRNGKeyArray], Reconstruction
]  # (model, observations, start, key) of one vertebra, under vmap


def run_method(
    name: str,
    tasks: Sequence[Task],
    *,
    num_starts: int,
    seed: int,
    step: Callable[[str], None],
    weights: Mapping[str, str | None] | None = None,
    others: Mapping[str, Fitter] = {},
) -> tuple[list[Estimate], float]:
    """Estimates of one method for all tasks, and its seconds per task after compilation.

    `num_starts` and `seed` are for methods that fit every vertebra alone (`FITTED_ALONE`),
    `weights` the folders of the networks that some need (`NEEDED_NETWORK`), `others` the methods
    of a study that have no name here, such as those of an ablation.
    """
    if name in FITTED_ALONE:
        fitter = functools.partial(fit_each_case, name, num_starts=num_starts, seed=seed)
    else:
        fitter = others[name] if name in others else _fitter(name, weights or {})
    found, seconds = fitter(tasks, step=lambda note: step(f"{name}: {note}"))
    estimates = flag_unusual_sizes(tasks, [estimate_of(each) for each in found])
    return estimates, seconds / len(tasks)


def _fitter(name: str, weights: Mapping[str, str | None]) -> Fitter:
    if name == OURS:
        return functools.partial(fit_jointly, FIT_OPTIONS[OURS])
    folder = weights[NEEDED_NETWORK[name]]
    assert folder is not None, "the experiment checks that there are weights"
    if name == LEARNED:
        return functools.partial(fit_isolated, folder, FIT_OPTIONS[OURS], REFINED_ALONE)
    if name == FAITHFUL:
        return functools.partial(fit_faithful, folder)
    return functools.partial(fit_ours, folder, FIT_OPTIONS[OURS])


def fit_each_case(
    name: str,
    tasks: Sequence[Task],
    *,
    num_starts: int,
    seed: int,
    step: Callable[[str], None],
) -> tuple[list[Reconstruction], float]:
    """A `Fitter` for which every vertebra in its views is a case of its own."""
    if name == ISOLATED:
        tasks, name = [with_true_isolation(task) for task in tasks], ALONE
    keys = jax.random.split(jax.random.key(seed), len(tasks))
    return run_cases(_case_fit(name, num_starts), *fit_arguments(tasks), list(keys), step=step)


@functools.cache
def _case_fit(name: str, num_starts: int) -> CaseFit:
    """The same object for the same arguments, so that it is compiled once."""
    if name == "landmarks":
        return lambda model, seen, start, _: _from_landmarks(model, seen, start)
    options = FIT_OPTIONS[name]
    if num_starts == 1:
        return lambda model, seen, start, _: fit(model, seen, start, options)
    return lambda model, seen, start, key: fit_from_starts(
        model, seen, start, options, num_starts=num_starts, key=key
    )


def _from_landmarks(
    model: ssm.ShapeModel, seen: Observations, start: transforms.SE3
) -> Reconstruction:
    parameters = fit_landmarks(model, seen, start)
    return Reconstruction(
        pose=moved_pose(start, parameters),
        coefficients=parameters.coefficients,
        loss=jnp.zeros(()),
        history=jnp.zeros(1),
        mask_agreement=jnp.ones(len(seen.view_valid)),
        status=jnp.zeros((), jnp.int32),
    )
