"""Another try at the answers that are withheld."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from dartjax import data, registration, transforms
from dartjax.observations import Observations
from dartjax.pipeline._assess import (
    Around,
    Assessment,
    Judgement,
    Step,
    assess,
    judge,
    refusals,
    scene_features,
)
from dartjax.pipeline._task import Estimate, Task, estimate_of, scenes_of
from dartjax.registration import (
    FEATURE_NAMES,
    FitOptions,
    Surroundings,
    fit_from_starts,
)
from dartjax.ssm import ShapeModel


class Recovery(NamedTuple):
    """Answers after trying again where they were refused, and how each came about."""

    estimates: list[Estimate]
    judgements: list[Judgement]
    how: list[str]  # "first fit", "restarts" or "neighbours"


def recover(
    tasks: Sequence[Task],
    estimates: Sequence[Estimate],
    assessed: Assessment,
    options: FitOptions,
    stored: data.StoredFailureModel,
    around: Around = None,
    *,
    num_starts: int = 6,
    seed: int = 0,
    step: Step = lambda note: None,
) -> Recovery:
    """Answers that are refused are fitted again: from disturbed starts (0.15 rad and 6 mm per
    axis; the best loss of `num_starts`), and from the pose that the accepted answers of the
    neighbouring levels suggest. An answer is replaced by one with a lower probability of failure.
    """
    answers, how = list(estimates), ["first fit"] * len(tasks)
    judged = judge(assessed, stored)
    doubtful = [i for i, reason in enumerate(refusals(judged, stored.threshold)) if reason]
    keys = jax.random.split(jax.random.key(seed), max(len(tasks), 1))

    starts = {
        "restarts": {i: tasks[i].start for i in doubtful},
        "neighbours": _suggested(tasks, estimates, doubtful),
    }
    for name, index in starts.items():
        if not index:
            continue
        refit = _refit(options, num_starts if name == "restarts" else 1)
        tried = list(answers)
        for done, (i, start) in enumerate(index.items(), 1):
            near = None if around is None else around[i]
            result = refit(tasks[i].model, tasks[i].observations, start, near, keys[i])
            tried[i] = estimate_of(result)
            step(f"{name}: {done}/{len(index)}")
        second = judge(_again(tasks, tried, assessed, list(index), options, around), stored)
        for i in index:
            if second[i].probability < judged[i].probability:
                answers[i], judged[i], how[i] = tried[i], second[i], name
    return Recovery(answers, judged, how)


@functools.cache
def _refit(options: FitOptions, num_starts: int):
    """One vertebra again, from disturbed starts; like `_measured` compiled once."""

    @jax.jit
    def refit(
        model: ShapeModel,
        seen: Observations,
        start: transforms.SE3,
        around: Surroundings | None,
        key: PRNGKeyArray,
    ):
        return fit_from_starts(
            model,
            seen,
            start,
            options,
            around,
            num_starts=num_starts,
            key=key,
            rotation_sigma=0.15,
            translation_sigma=6.0,
        )

    return refit


def _again(
    tasks: Sequence[Task],
    estimates: Sequence[Estimate],
    assessed: Assessment,
    index: Sequence[int],
    options: FitOptions,
    around: Around,
) -> Assessment:
    """The assessment with the answers at `index` measured anew."""
    near = None if around is None else [around[i] for i in index]
    part = assess([tasks[i] for i in index], [estimates[i] for i in index], options, near)
    own, losses, vertex_std, path_std = (
        _replaced(before, index, after) for before, after in zip(assessed, part, strict=True)
    )
    own = own[:, : len(FEATURE_NAMES)]
    of_scene = scene_features(tasks, estimates, own, losses)
    return Assessment(np.concatenate([own, of_scene], axis=1), losses, vertex_std, path_std)


def _replaced(before: np.ndarray, index: Sequence[int], after: np.ndarray) -> np.ndarray:
    changed = before.copy()
    changed[list(index)] = after
    return changed


def _suggested(
    tasks: Sequence[Task], estimates: Sequence[Estimate], doubtful: Sequence[int]
) -> dict[int, transforms.SE3]:
    """For every doubtful answer the pose that those believed in the same views suggest."""
    starts = {}
    for scene in scenes_of(tasks):
        along = registration.positions_mm({tasks[i].level: tasks[i].model for i in scene})
        good = {
            tasks[i].level: estimates[i].pose
            for i in scene
            if i not in doubtful and not tasks[i].refused
        }
        for i in scene:
            neighbour = registration.expected(tasks[i].level, along, good)
            if i in doubtful and bool(neighbour.known):
                starts[i] = neighbour.pose
    return starts
