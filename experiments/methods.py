"""The rows of a reconstruction table: every method with the same start and evidence."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from dartjax import ssm, transforms
from dartjax.observations import Observations
from dartjax.registration import (
    FitOptions,
    ObjectiveWeights,
    Reconstruction,
    Scale,
    fit,
    fit_from_starts,
    fit_landmarks,
    moved_pose,
)
from dartjax.render import local_gradient_ncc, ncc, xvr_similarity
from experiments import isolation, joint, limits, similarity
from experiments.batches import columns_of, run_cases
from experiments.grading import Estimate, Task, estimate_of, with_sizes_checked
from experiments.scene import CROP_WIDTH_MM

# Windows of about 5 mm at the pixel size of each scale (64 and 128 px over the crop).
_COARSE, _FINE = (functools.partial(local_gradient_ncc, window=w, eps=0.03) for w in (3, 7))
_LOCAL = (_COARSE, _FINE)

OURS = "dartjax"  # all vertebrae of a scene together
ALONE = "each alone"  # the same objective, without neighbours
LEARNED = "isolated"  # the same with what a network makes of the X-rays, see `isolation`
FAITHFUL = "faithful"  # a learned similarity and nothing else, as in Spine-DART
SUM = "ours"  # all together, with the learned similarity as one more term
NEEDS = {LEARNED: "isolation", FAITHFUL: "similarity", SUM: "similarity"}  # whose weights
ISOLATED = "true isolated DRR"  # the same again, with nothing else in the X-rays: a bound
FIT_OPTIONS: dict[str, FitOptions] = {
    "landmarks+masks": FitOptions(similarity=_LOCAL, weights=ObjectiveWeights(similarity=0.0)),
    "ncc": FitOptions(similarity=(ncc,) * 2, weights=ObjectiveWeights(silhouette=0.0)),
    "xvr": FitOptions(similarity=(xvr_similarity,) * 2, weights=ObjectiveWeights(silhouette=0.0)),
    ALONE: FitOptions(similarity=_LOCAL, crop_width_mm=CROP_WIDTH_MM),
    # Every stage begins with what the neighbours have become: more and shorter stages.
    OURS: FitOptions(
        similarity=(_COARSE, _COARSE, _FINE, _FINE),
        scales=(
            Scale(64, 1.2, 20, 0.08),
            Scale(64, 1.2, 20, 0.05),
            Scale(128, 0.7, 15, 0.04),
            Scale(128, 0.7, 15, 0.03),
        ),
        crop_width_mm=CROP_WIDTH_MM,
    ),
}
# On images that show one vertebra each: from the start, and from an answer.
_SHOWN_ALONE = dataclasses.replace(FIT_OPTIONS[OURS], neighbours_rendered=False)
_REFINED_ALONE = dataclasses.replace(
    _SHOWN_ALONE, similarity=_SHOWN_ALONE.similarity[2:], scales=_SHOWN_ALONE.scales[2:]
)
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


class Fitter(Protocol):
    """Answers for tasks of one subject, in their order, and the seconds it took in all without
    what was compiled."""

    def __call__(
        self, tasks: Sequence[Task], *, step: Callable[[str], None]
    ) -> tuple[Sequence[Reconstruction], float]:
        """See the class."""
        ...


# Fitted one by one.
CASE_BY_CASE = ("landmarks", *(name for name in FIT_OPTIONS if name != OURS), ISOLATED)
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
) -> tuple[list[Estimate], float]:
    """Estimates of one method for all tasks, and its seconds per task after compilation.
    `num_starts` and `seed` are for those that fit every vertebra alone (`CASE_BY_CASE`), `weights`
    the folders of the networks that some need (`NEEDS`)."""
    if name in CASE_BY_CASE:
        fitter = functools.partial(fit_each_case, name, num_starts=num_starts, seed=seed)
    else:
        fitter = _with_network(name, weights or {}) if name in NEEDS else TOGETHER[name]
    found, seconds = fitter(tasks, step=lambda note: step(f"{name}: {note}"))
    estimates = with_sizes_checked(tasks, [estimate_of(each) for each in found])
    return estimates, seconds / len(tasks)


def _with_network(name: str, weights: Mapping[str, str | None]) -> Fitter:
    folder = weights[NEEDS[name]]
    assert folder is not None, "the experiment checks that there are weights"
    if name == LEARNED:
        return functools.partial(isolation.fit_isolated, folder, FIT_OPTIONS[OURS], _REFINED_ALONE)
    if name == FAITHFUL:
        return functools.partial(similarity.fit_faithful, folder)
    return functools.partial(similarity.fit_ours, folder, FIT_OPTIONS[OURS])


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
        tasks, name = [limits.with_true_isolation(task) for task in tasks], ALONE
    keys = jax.random.split(jax.random.key(seed), len(tasks))
    return run_cases(_case_fit(name, num_starts), *columns_of(tasks), list(keys), step=step)


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


def _without(term: str) -> Fitter:
    weights = dataclasses.replace(FIT_OPTIONS[OURS].weights, **{term: 0.0})
    return functools.partial(
        joint.fit_jointly, dataclasses.replace(FIT_OPTIONS[OURS], weights=weights)
    )


# What every part of OURS is worth: the same fit without it. Landmarks still move the start.
ABLATION: Mapping[str, Fitter] = {
    "without images": _without("similarity"),
    "without masks": _without("silhouette"),
    "without landmarks": _without("landmarks"),
    "without shape prior": _without("prior"),
    "without prior along the spine": _without("neighbours"),
    "without resemblance": functools.partial(
        joint.fit_jointly, dataclasses.replace(FIT_OPTIONS[OURS], kinship=0.0)
    ),
    "without neighbours": functools.partial(
        joint.fit_jointly, FIT_OPTIONS[OURS], among_others=False
    ),
}
# The same fit told one part of the truth.
LIMITS: Mapping[str, Fitter] = {
    name: functools.partial(
        limits.fit_told, tell, _SHOWN_ALONE if name == limits.ISOLATION else FIT_OPTIONS[OURS]
    )
    for name, tell in limits.LIMITS.items()
}
# Every other row of the table that is an answer and needs no network.
TOGETHER: Mapping[str, Fitter] = (
    {OURS: functools.partial(joint.fit_jointly, FIT_OPTIONS[OURS])} | ABLATION | LIMITS
)
