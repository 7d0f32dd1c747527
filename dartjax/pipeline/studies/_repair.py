"""Study of recovery: abstained vertebrae fitted from other starts, or with a third view."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import data, registration, simulation
from dartjax._progress import Progress, Step, no_progress
from dartjax.camera import Camera
from dartjax.observations import Observations
from dartjax.pipeline._assess import abstention_reasons, assess_quality
from dartjax.pipeline._next_view import candidate_views, next_views
from dartjax.pipeline._recipes import run_method
from dartjax.pipeline._recover import recover
from dartjax.pipeline._starts import detected_tasks, initialise_tasks
from dartjax.pipeline._task import Estimate, Task, grade_estimate, no_answer_reason
from dartjax.pipeline.studies._stress import (
    AssessedScene,
    CameraMisplacement,
    with_misplaced_cameras,
)


class Repair(NamedTuple):
    """Abstained vertebra: its error before and after each kind of recovery."""

    subject: str
    level: str
    pair: int
    camera_severity: float
    failure_probability: float
    masd_mm: float
    masd_recovered_mm: float
    failure_probability_recovered: float
    recovered_by: str  # see `Recovery.how`
    masd_third_view_mm: float
    path_std_ratio_third_view: float  # expected, of the path points


def try_repairs(
    case: data.Case,
    scenes: Sequence[AssessedScene],
    method: str,
    stored: data.StoredFailureModel,
    seed: int,
    progress: Progress = no_progress,
) -> list[Repair]:
    """Recover all abstained vertebrae in the scenes of a case: by `recover`, and by one further
    X-ray with the least expected uncertainty."""
    repairs: list[Repair] = []
    with progress(f"recovery of {case.subject}") as step:
        for scene in scenes:
            repairs += _repairs(case, scene, method, stored, seed, step)
    return repairs


def _repairs(
    case: data.Case,
    assessed: AssessedScene,
    method: str,
    stored: data.StoredFailureModel,
    seed: int,
    step: Step,
) -> list[Repair]:
    scene, answers, neighbours, measures = assessed
    tasks, options = scene.tasks, registration.FIT_OPTIONS[method]
    qualities = assess_quality(measures, stored)
    reasons = abstention_reasons(qualities, stored.threshold)
    abstained = [
        i
        for i, reason in enumerate(reasons)
        if reason and not no_answer_reason(tasks[i], answers[i])
    ]
    if not abstained:
        return []
    recovered = recover(tasks, answers, measures, options, stored, neighbours, seed=seed, step=step)
    three_views, expected = _with_third_view(case, assessed, abstained, method, seed, step)
    with_third, _ = run_method(method, three_views, num_starts=1, seed=seed, step=step)
    return [
        Repair(
            subject=tasks[i].subject,
            level=tasks[i].level,
            pair=tasks[i].pair,
            camera_severity=scene.severity,
            failure_probability=qualities[i].probability,
            masd_mm=_masd(tasks[i], answers[i]),
            masd_recovered_mm=_masd(tasks[i], recovered.estimates[i]),
            failure_probability_recovered=recovered.assessments[i].probability,
            recovered_by=recovered.how[i],
            masd_third_view_mm=_masd(tasks[i], third),
            path_std_ratio_third_view=expected,
        )
        for i, third in zip(abstained, with_third, strict=True)
    ]


def _masd(task: Task, estimate: Estimate) -> float:
    return grade_estimate(task, estimate)["masd_mm"]


def _with_third_view(
    case: data.Case,
    assessed: AssessedScene,
    abstained: Sequence[int],
    method: str,
    seed: int,
    step: Step,
) -> tuple[list[Task], float]:
    """Add the best further X-ray of the scene to the abstained tasks, with detections of the same
    detector; also return the expected ratio of the path points' deviation."""
    all_tasks = assessed.scene.tasks
    middle = np.mean([np.asarray(t.start.translation()) for t in all_tasks], axis=0)
    view, expected = _best_view(assessed, abstained, middle, method, step)
    third = _detected_in(case, assessed, abstained, view, middle, seed)
    both = [
        dataclasses.replace(
            all_tasks[i],
            observations=jax.tree.map(
                lambda a, b: jnp.concatenate([a, b]), _detected(all_tasks[i]), other.observations
            ),
        )
        for i, other in zip(abstained, third, strict=True)
    ]
    started, _ = initialise_tasks(both)
    return started, expected


def _best_view(
    assessed: AssessedScene,
    abstained: Sequence[int],
    middle: Float[np.ndarray, "3"],
    method: str,
    step: Step,
) -> tuple[Camera, float]:
    """Find the candidate with the least expected deviation of the path points, and its ratio to
    the median of the candidates."""
    scene, answers, neighbours, _ = assessed
    candidates = candidate_views(middle, scene.radiographs[0].camera)
    found = next_views(
        [scene.tasks[i] for i in abstained],
        [answers[i] for i in abstained],
        registration.FIT_OPTIONS[method],
        candidates,
        None if neighbours is None else [neighbours[i] for i in abstained],
        step=step,
    )
    best = int(np.argmin(np.median(found / np.median(found, axis=1, keepdims=True), axis=0)))
    ratio = float(np.median(found[:, best] / np.median(found, axis=1)))
    return jax.tree.map(lambda leaf: leaf[best], candidates), ratio


def _detected_in(
    case: data.Case,
    assessed: AssessedScene,
    abstained: Sequence[int],
    view: Camera,
    middle: Float[np.ndarray, "3"],
    seed: int,
) -> list[Task]:
    """Make the abstained tasks in one further X-ray, with a camera misplaced as severely as the
    other cameras of the scene."""
    scene = assessed.scene
    tasks = [scene.tasks[i] for i in abstained]
    (radiograph,) = simulation.simulate(case.ct, [view], simulation.CarmSetup())
    third = detected_tasks(
        case.subject,
        [t.truth for t in tasks if t.truth is not None],
        [radiograph],
        detector=simulation.DETECTORS[scene.detector],
        seed=seed + 1,
        pair=tasks[0].pair,
    )
    rng = np.random.default_rng([seed, tasks[0].pair, 3])
    return with_misplaced_cameras(third, middle, scene.severity, CameraMisplacement(), rng)


def _detected(task: Task) -> Observations:
    """Return all detections of a task, with the outliers of its start."""
    return task.observations if task.detected is None else task.detected
