"""Recovery: fit again where the failure probability is high."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from dartjax import data, registration, transforms
from dartjax._progress import Step, no_step
from dartjax.observations import Observations
from dartjax.pipeline._assess import (
    QualityAssessment,
    QualityMeasures,
    RenderedNeighbours,
    abstention_reasons,
    assess_quality,
    measure_quality,
    scene_features,
)
from dartjax.pipeline._task import Estimate, Task, estimate_of, indices_by_scene, spine_order
from dartjax.registration import (
    FEATURE_NAMES,
    FitOptions,
    Surroundings,
    fit_from_starts,
)
from dartjax.ssm import ShapeModel


class Recovery(NamedTuple):
    """Estimates after recovery, and the source of each."""

    estimates: list[Estimate]
    assessments: list[QualityAssessment]
    how: list[str]  # "first fit", "restarts" or "neighbours"


def recover(
    tasks: Sequence[Task],
    estimates: Sequence[Estimate],
    measures: QualityMeasures,
    options: FitOptions,
    stored: data.StoredFailureModel,
    neighbours: RenderedNeighbours = None,
    *,
    num_starts: int = 6,
    seed: int = 0,
    step: Step = no_step,
) -> Recovery:
    """Fit the vertebrae again whose failure probability is above the threshold.

    New fits start from disturbed starts (0.15 rad and 6 mm per axis; the best loss of `num_starts`)
    and from the pose that the accepted estimates of the neighbouring levels suggest. An estimate
    is replaced by one with a lower failure probability. `neighbours` as in `measure_quality`.
    """
    answers, how = list(estimates), ["first fit"] * len(tasks)
    assessed = assess_quality(measures, stored)
    reasons = abstention_reasons(assessed, stored.threshold)
    unreliable = [i for i, reason in enumerate(reasons) if reason]
    keys = jax.random.split(jax.random.key(seed), max(len(tasks), 1))

    starts = {
        "restarts": {i: tasks[i].start for i in unreliable},
        "neighbours": _suggested_starts(tasks, estimates, unreliable),
    }
    for name, index in starts.items():
        if not index:
            continue
        refit = _refit(options, num_starts if name == "restarts" else 1)
        refitted = list(answers)
        for done, (i, start) in enumerate(index.items(), 1):
            near = None if neighbours is None else neighbours[i]
            result = refit(tasks[i].model, tasks[i].observations, start, near, keys[i])
            refitted[i] = estimate_of(result)
            step(f"{name}: {done}/{len(index)}")
        updated = _measured_again(tasks, refitted, measures, list(index), options, neighbours)
        reassessed = assess_quality(updated, stored)
        for i in index:
            if reassessed[i].probability < assessed[i].probability:
                answers[i], assessed[i], how[i] = refitted[i], reassessed[i], name
    return Recovery(answers, assessed, how)


@functools.cache
def _refit(options: FitOptions, num_starts: int):
    """Make the fit of one vertebra from disturbed starts; cached per arguments, so that it is
    compiled once."""

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


def _measured_again(
    tasks: Sequence[Task],
    estimates: Sequence[Estimate],
    measures: QualityMeasures,
    index: Sequence[int],
    options: FitOptions,
    neighbours: RenderedNeighbours,
) -> QualityMeasures:
    """Measure the estimates at `index` again, and update the scene features of all estimates."""
    near = None if neighbours is None else [neighbours[i] for i in index]
    part = measure_quality([tasks[i] for i in index], [estimates[i] for i in index], options, near)
    every = QualityMeasures(
        *(_replaced(before, index, after) for before, after in zip(measures, part, strict=True))
    )
    own = every.features[:, : len(FEATURE_NAMES)]
    of_scene = scene_features(tasks, estimates, own, every.losses)
    return every._replace(features=np.concatenate([own, of_scene], axis=1))


def _replaced(before: np.ndarray, index: Sequence[int], after: np.ndarray) -> np.ndarray:
    changed = before.copy()
    changed[list(index)] = after
    return changed


def _suggested_starts(
    tasks: Sequence[Task], estimates: Sequence[Estimate], unreliable: Sequence[int]
) -> Mapping[int, transforms.SE3]:
    """Predict the pose of every unreliable vertebra from the accepted ones in the same views."""
    starts = {}
    for scene in indices_by_scene(tasks):
        if not set(scene) & set(unreliable):
            continue
        accepted = [i not in unreliable and not tasks[i].abstention for i in scene]
        order = spine_order([tasks[i] for i in scene])
        order = dataclasses.replace(order, present=jnp.array(accepted))
        poses = registration.stack([estimates[i].pose for i in scene])
        expected = registration.expected_poses(order, poses)
        for place, i in enumerate(scene):
            if i in unreliable and bool(expected.known[place]):
                starts[i] = jax.tree.map(lambda leaf, at=place: leaf[at], expected.pose)
    return starts
