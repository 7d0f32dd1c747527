"""Recipes of a reconstruction: named methods, all with the same starts and observations."""

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
    JOINT,
    REFINE_ISOLATED,
    Reconstruction,
    fit,
    fit_from_starts,
    fit_landmarks,
    moved_pose,
)

ISOLATION_NETWORK = "isolated"  # joint fit on images from the isolation network
LEARNED_ONLY = "faithful"  # learned similarity alone, as in Spine-DART
JOINT_AND_LEARNED = "ours"  # joint fit with the learned similarity as one more term
# The network whose weights a method needs.
NEEDED_NETWORK = {
    ISOLATION_NETWORK: "isolation",
    LEARNED_ONLY: "similarity",
    JOINT_AND_LEARNED: "similarity",
}
TRUE_ISOLATION = "true isolated DRR"  # `ALONE` on X-rays of this vertebra only: an upper bound
RECIPES = {
    "landmarks": "landmarks",
    "landmarks+masks": "landmarks+masks",
    "ncc": "ncc",
    "xvr": "xvr",
    "alone": ALONE,
    "classical": JOINT,
    "isolated": ISOLATION_NETWORK,
    "faithful": LEARNED_ONLY,
    "ours": JOINT_AND_LEARNED,
}
"""Name of the method of each recipe (`--recipe`). In a table the other recipes are baselines, in
this order.

- `landmarks`: maximum a posteriori fit of pose and shape to the landmarks only
  (`registration.fit_landmarks`). Baseline that shows what the images add.
- `landmarks+masks`: landmarks, masks and shape prior, no images (an ablation of `alone`).
- `ncc`: landmarks and global NCC (`render.ncc`), the classical similarity baseline.
- `xvr`: landmarks and the multiscale similarity of xvr (Gopalakrishnan et al. 2025,
  arXiv:2503.16309).
- `alone`: landmarks, masks and local gradient NCC, each vertebra in its own fit.
- `classical` (default): the objective of `alone` in a joint fit of all vertebrae of a scene, with a
  prior between neighbours and shape coupling.
- `isolated`: `classical`, then two rounds that isolate each vertebra by a network and refine the
  joint fit on these images (docs/results/networks.md).
- `faithful`: learned multi-view similarity alone, as in Spine-DART (arXiv:2512.05803, section 4.3).
  Two stages of 40 steps at the pixel size of the network.
- `ours`: `classical` plus the learned similarity with weight 0.1. On 42 synthetic vertebrae, from
  whom weights are chosen, 0.1 gave a mean surface distance of 1.402 mm, 0.5 gave 1.415 mm, and no
  learned term gave 1.411 mm (docs/results/networks.md).

The numbers of the classical recipes are in `registration.FIT_OPTIONS`, with their reasons;
docs/results/reconstruction.md compares all recipes on a real CT.
"""


@runtime_checkable
class Fitter(Protocol):
    """Function that reconstructs the tasks of one subject: the results in the order of the tasks,
    and the total seconds without compilation."""

    def __call__(
        self, tasks: Sequence[Task], *, step: Callable[[str], None]
    ) -> tuple[Sequence[Reconstruction], float]:
        """See the class."""
        ...


# The methods that fit every vertebra separately.
FITTED_ALONE = ("landmarks", *(name for name in FIT_OPTIONS if name != JOINT), TRUE_ISOLATION)
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
    """Run one method on all tasks; return the estimates, and the seconds per task after
    compilation.

    `num_starts` and `seed` apply to methods that fit every vertebra separately (`FITTED_ALONE`).
    `weights` holds the folders of the networks (see `NEEDED_NETWORK`), `others` the methods of a
    study that are not recipes, such as those of an ablation.
    """
    if name in FITTED_ALONE:
        fitter = functools.partial(fit_each_case, name, num_starts=num_starts, seed=seed)
    else:
        fitter = others[name] if name in others else _fitter(name, weights or {})
    found, seconds = fitter(tasks, step=lambda note: step(f"{name}: {note}"))
    estimates = flag_unusual_sizes(tasks, [estimate_of(each) for each in found])
    return estimates, seconds / len(tasks)


def _fitter(name: str, weights: Mapping[str, str | None]) -> Fitter:
    if name == JOINT:
        return functools.partial(fit_jointly, FIT_OPTIONS[JOINT])
    folder = weights[NEEDED_NETWORK[name]]
    assert folder is not None, "the experiment checks that there are weights"
    if name == ISOLATION_NETWORK:
        return functools.partial(fit_isolated, folder, FIT_OPTIONS[JOINT], REFINE_ISOLATED)
    if name == LEARNED_ONLY:
        return functools.partial(fit_faithful, folder)
    return functools.partial(fit_ours, folder, FIT_OPTIONS[JOINT])


def fit_each_case(
    name: str,
    tasks: Sequence[Task],
    *,
    num_starts: int,
    seed: int,
    step: Callable[[str], None],
) -> tuple[list[Reconstruction], float]:
    """Fit every vertebra separately, all tasks in one batch (a `Fitter`)."""
    if name == TRUE_ISOLATION:
        tasks, name = [with_true_isolation(task) for task in tasks], ALONE
    keys = jax.random.split(jax.random.key(seed), len(tasks))
    return run_cases(_case_fit(name, num_starts), *fit_arguments(tasks), list(keys), step=step)


@functools.cache
def _case_fit(name: str, num_starts: int) -> CaseFit:
    """Make the fit of one case; cached per arguments, so that it is compiled once."""
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
