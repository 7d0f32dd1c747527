"""Stress set of failure models: reconstructions from detections of varying quality and misplaced
cameras, with their errors.

Failure models are fitted to these trials and evaluated on them.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from dartjax import data, planning, registration, simulation, ssm, transforms
from dartjax._progress import Progress, Step, no_progress, no_step
from dartjax.image import Radiograph
from dartjax.pipeline._assess import (
    ALL_FEATURE_NAMES,
    QualityMeasures,
    RenderedNeighbours,
    measure_quality,
    rendered_neighbours,
)
from dartjax.pipeline._recipes import run_method
from dartjax.pipeline._starts import detected_tasks, initialise_tasks
from dartjax.pipeline._task import (
    FAILURE_MM,
    Estimate,
    Task,
    estimated_surface,
    grade_estimate,
    no_answer_reason,
)
from dartjax.registration import carm_motion, stack, with_moved_cameras
from dartjax.simulation import TrueVertebra


@dataclasses.dataclass(frozen=True)
class CameraMisplacement:
    """Size of the camera errors in every second scene. A severity is drawn from [0, 1]; every view
    is turned about the middle of the scene by up to severity x turn_deg and shifted by up to
    severity x shift_mm, both in random directions."""

    turn_deg: float = 3.0
    shift_mm: float = 10.0


class StressScene(NamedTuple):
    """All vertebrae of a subject in one set of views."""

    tasks: list[Task]
    radiographs: list[Radiograph]  # with the cameras they were taken with
    severity: float  # of the cameras' misplacement
    detector: str


class AssessedScene(NamedTuple):
    """Estimates of a method for a scene, with their quality measures."""

    scene: StressScene
    answers: list[Estimate]
    neighbours: RenderedNeighbours
    measures: QualityMeasures


class FailureTrials(NamedTuple):
    """Quality measures and errors of many estimates; leading axis case."""

    kind: np.ndarray  # of the data: synthetic, real_ct_drr or real_xray
    subject: np.ndarray
    level: np.ndarray
    pair: np.ndarray
    detector: np.ndarray
    severity: np.ndarray  # of the cameras' misplacement, 0 to 1
    masd_mm: Float[np.ndarray, " case"]
    features: Float[np.ndarray, "case feature"]  # ALL_FEATURE_NAMES
    vertex_std: Float[np.ndarray, "case vertex"]  # mm, without inflation
    vertex_error: Float[np.ndarray, "case vertex"]  # signed distance to the true surface, mm
    path_std: Float[np.ndarray, "case side 2 3"]  # mm, without inflation
    path_error: Float[np.ndarray, "case side 2 3"]  # along the world's axes, mm

    @property
    def failed(self) -> Bool[np.ndarray, " case"]:
        """Return whether the MASD is above 2 mm."""
        return self.masd_mm > FAILURE_MM


def collect_failure_trials(
    case: data.Case,
    levels: Sequence[str],
    *,
    detectors: Sequence[str],
    pairs: int,
    seed: int,
    method: str,
    misplacement: CameraMisplacement = CameraMisplacement(),
    progress: Progress = no_progress,
) -> tuple[FailureTrials, list[AssessedScene]]:
    """Reconstruct one case in random pairs of views, and compare the results with the ground truth.

    Every detector (of `simulation.DETECTORS`) gets the same X-rays. If an image does not show
    the whole spine, every part has its `pairs`. `method` is one of `registration.FIT_OPTIONS`.
    """
    scenes: list[StressScene] = []
    with progress(f"true shapes of {case.subject}") as step:
        true = simulation.true_vertebrae(case, levels, step)
    with progress(f"scenes of {case.subject}") as step:
        shared = [part for part in simulation.seen_at_once(true) for _ in range(pairs)]
        for pair, part in enumerate(shared):
            scenes += stress_scenes(
                case,
                part,
                detectors=detectors,
                pair=pair,
                seed=seed,
                misplacement=misplacement,
                step=step,
            )
    with progress(f"answers of {case.subject}") as step:
        assessed = [_assessed(scene, method, seed, step) for scene in scenes]
    return _trials_of(case.dataset_kind, assessed), assessed


def stress_scenes(
    case: data.Case,
    true: Sequence[TrueVertebra],
    *,
    detectors: Sequence[str],
    pair: int,
    seed: int,
    misplacement: CameraMisplacement,
    step: Step = no_step,
) -> list[StressScene]:
    """Make the scenes of one random pair of views: one for each detector, on the same X-rays."""
    rng = np.random.default_rng([seed, pair, *case.subject.encode()])
    setup = simulation.CarmSetup()
    isocenter = simulation.middle_of(true)
    views = simulation.random_views(rng, isocenter, setup)
    radiographs = simulation.simulate(case.ct, views, setup)
    step("X-rays")
    scenes = []
    for name in detectors:
        tasks = detected_tasks(
            case.subject,
            true,
            radiographs,
            detector=simulation.DETECTORS[name],
            seed=seed,
            pair=pair,
        )
        severity = rng.uniform() if pair % 2 else 0.0
        tasks = with_misplaced_cameras(tasks, isocenter, severity, misplacement, rng)
        started, _ = initialise_tasks(tasks)
        scenes.append(StressScene(started, radiographs, severity, name))
        step(f"detector {name}")
    return scenes


def with_misplaced_cameras(
    tasks: Sequence[Task],
    middle: Float[np.ndarray, "3"],
    severity: float,
    misplacement: CameraMisplacement,
    rng: np.random.Generator,
) -> list[Task]:
    """Move the cameras of a scene away from the true ones, about `middle` (world mm)."""
    num_views = len(tasks[0].observations.view_valid)
    motions = stack([_carm_error(middle, severity, misplacement, rng) for _ in range(num_views)])
    return [
        dataclasses.replace(t, observations=with_moved_cameras(t.observations, motions))
        for t in tasks
    ]


def _carm_error(
    middle: Float[np.ndarray, "3"],
    severity: float,
    misplacement: CameraMisplacement,
    rng: np.random.Generator,
) -> transforms.SE3:
    turn = _vector_within(rng, severity * np.deg2rad(misplacement.turn_deg))
    return carm_motion(
        jnp.asarray(middle, jnp.float32),
        turn,
        _vector_within(rng, severity * misplacement.shift_mm),
    )


def _vector_within(rng: np.random.Generator, length: float) -> Float[jax.Array, "3"]:
    """Draw a vector of random direction, with a length uniform up to `length`."""
    direction = rng.normal(size=3)
    vector = rng.uniform(0.0, 1.0) * length * direction / np.linalg.norm(direction)
    return jnp.asarray(vector, jnp.float32)


def _assessed(scene: StressScene, method: str, seed: int, step: Step) -> AssessedScene:
    answers, _ = run_method(method, scene.tasks, num_starts=1, seed=seed, step=step)
    neighbours = rendered_neighbours(scene.tasks, answers, method)
    options = registration.FIT_OPTIONS[method]
    measures = measure_quality(scene.tasks, answers, options, neighbours, step=step)
    return AssessedScene(scene, answers, neighbours, measures)


def _trials_of(kind: str, scenes: Sequence[AssessedScene]) -> FailureTrials:
    """Collect quality measures and errors; tasks without a result are skipped."""
    rows = []
    for scene, answers, _, measures in scenes:
        for i, (task, estimate) in enumerate(zip(scene.tasks, answers, strict=True)):
            if no_answer_reason(task, estimate):
                continue
            masd, distance, path = _errors(task, estimate)
            case = (kind, task.subject, task.level, task.pair, scene.detector, scene.severity)
            measured = (masd, measures.features[i], measures.vertex_std[i], distance)
            rows.append((*case, *measured, measures.path_std[i], path))
    return FailureTrials(*(np.array(column) for column in zip(*rows, strict=True)))


def _errors(task: Task, estimate: Estimate) -> tuple[float, np.ndarray, np.ndarray]:
    """Compute MASD, signed distances of the vertices to the true surface, and errors of the path
    points."""
    assert task.truth is not None
    found = estimated_surface(task, estimate)
    masd = grade_estimate(task, estimate)["masd_mm"]
    distance = planning.signed_distance(task.truth.field, found.vertices)
    paths = ssm.paths(task.model, found.vertices) - task.truth.paths
    return masd, np.asarray(distance, np.float32), np.asarray(paths, np.float32)


def join_failure_trials(parts: Sequence[FailureTrials]) -> FailureTrials:
    """Concatenate several sets of trials."""
    return FailureTrials(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def save_failure_trials(file: str | pathlib.Path, trials: FailureTrials) -> None:
    """Write trials to an npz file without pickle."""
    np.savez_compressed(file, **trials._asdict())


def load_failure_trials(file: str | pathlib.Path) -> FailureTrials:
    """Read a file of `save_failure_trials`; DataError if its content is invalid."""
    with data.open_arrays(
        file, problem="holds no trials, or is damaged", remedy="collect them again"
    ) as arrays:
        trials = FailureTrials(*(arrays[name] for name in FailureTrials._fields))
    if trials.features.shape[1] != len(ALL_FEATURE_NAMES):
        raise data.DataError(
            f"{file} has other features than this version of dartjax: collect the trials again"
        )
    return trials
