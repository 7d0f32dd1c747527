"""Reconstructions that may fail, and by how much they did: detections of any quality, cameras
that are not where they are said to be.

What `fit_failure_model` learns from and `evaluate_failure_model` reports on.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import cli, data, pipeline, planning, registration, simulation, ssm
from dartjax.image import Radiograph
from dartjax.pipeline import Estimate, Task
from dartjax.registration import carm_motion, stack, with_moved_cameras
from dartjax.simulation import TrueVertebra

# Those with an objective whose curvature can be had.
RECIPES = [recipe for recipe, name in pipeline.RECIPES.items() if name in registration.FIT_OPTIONS]
Step = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class CameraError:
    """How wrong the cameras are that the fit is given, in every second scene: a severity is drawn
    from [0, 1]; every view is turned about the middle of the scene by up to severity x turn_deg
    and shifted by up to severity x shift_mm, both in random directions."""

    turn_deg: float = 3.0
    shift_mm: float = 10.0


class Scene(NamedTuple):
    """All vertebrae of a subject in one set of views."""

    tasks: list[Task]
    radiographs: list[Radiograph]  # with the cameras they were taken with
    severity: float  # of the cameras' error
    detector: str


class Judged(NamedTuple):
    """A method's answers to a scene, and what was measured of them."""

    scene: Scene
    answers: list[Estimate]
    around: pipeline.Around
    assessed: pipeline.Assessment


class Trials(NamedTuple):
    """Answers, what was measured of them, and how wrong they are; leading axis case."""

    kind: np.ndarray  # of the data: see `results.KINDS`
    subject: np.ndarray
    level: np.ndarray
    pair: np.ndarray
    detector: np.ndarray
    severity: Float[np.ndarray, " case"]
    masd_mm: Float[np.ndarray, " case"]
    features: Float[np.ndarray, "case feature"]
    vertex_std: Float[np.ndarray, "case vertex"]
    vertex_error: Float[np.ndarray, "case vertex"]  # signed distance to the true surface, mm
    path_std: Float[np.ndarray, "case side 2 3"]
    path_error: Float[np.ndarray, "case side 2 3"]  # world mm

    @property
    def failed(self) -> np.ndarray:
        """Is the MASD above 2 mm?"""
        return self.masd_mm > pipeline.FAILURE_MM


def scenes_of(
    case: data.Case,
    true: Sequence[TrueVertebra],
    *,
    detectors: Sequence[str],
    pair: int,
    seed: int,
    camera_error: CameraError,
    step: Step = lambda note: None,
) -> list[Scene]:
    """One random pair of views of a case: a scene for every detector, all on the same X-rays."""
    rng = np.random.default_rng([seed, pair, *case.subject.encode()])
    setup = simulation.CarmSetup()
    isocenter = simulation.middle_of(true)
    views = simulation.random_views(rng, isocenter, setup)
    radiographs = simulation.simulate(case.ct, views, setup)
    step("X-rays")
    scenes = []
    for name in detectors:
        tasks = pipeline.detected_tasks(
            case.subject,
            true,
            radiographs,
            detector=simulation.DETECTORS[name],
            seed=seed,
            pair=pair,
        )
        severity = rng.uniform() if pair % 2 else 0.0
        tasks = with_wrong_cameras(tasks, isocenter, severity, camera_error, rng)
        started, _ = pipeline.initialised(tasks)
        scenes.append(Scene(started, radiographs, severity, name))
        step(f"detector {name}")
    return scenes


def with_wrong_cameras(
    tasks: Sequence[Task],
    middle: Float[np.ndarray, "3"],
    severity: float,
    error: CameraError,
    rng: np.random.Generator,
) -> list[Task]:
    """The tasks of a scene with cameras that stand elsewhere than the X-rays were taken from."""
    num_views = len(tasks[0].observations.view_valid)
    motions = stack([_carm_motion(middle, severity, error, rng) for _ in range(num_views)])
    return [
        dataclasses.replace(t, observations=with_moved_cameras(t.observations, motions))
        for t in tasks
    ]


def _carm_motion(
    middle: Float[np.ndarray, "3"], severity: float, error: CameraError, rng: np.random.Generator
):
    turn = _within(rng, severity * np.deg2rad(error.turn_deg))
    return carm_motion(
        jnp.asarray(middle, jnp.float32), turn, _within(rng, severity * error.shift_mm)
    )


def _within(rng: np.random.Generator, length: float) -> Float[jax.Array, "3"]:
    """A vector of random direction, its length uniform up to `length`."""
    direction = rng.normal(size=3)
    vector = rng.uniform(0.0, 1.0) * length * direction / np.linalg.norm(direction)
    return jnp.asarray(vector, jnp.float32)


def collect(
    case: data.Case,
    levels: Sequence[str],
    *,
    detectors: Sequence[str],
    pairs: int,
    seed: int,
    method: str,
    camera_error: CameraError = CameraError(),
) -> tuple[Trials, list[Judged]]:
    """Answers of a method to one case in random pairs of views, measured. Where an image does not
    show the whole spine, every part has its pairs."""
    scenes: list[Scene] = []
    with cli.progress(f"true shapes of {case.subject}") as step:
        true = simulation.true_vertebrae(case, levels, step)
    with cli.progress(f"scenes of {case.subject}") as step:
        shared = [part for part in simulation.seen_at_once(true) for _ in range(pairs)]
        for pair, part in enumerate(shared):
            scenes += scenes_of(
                case,
                part,
                detectors=detectors,
                pair=pair,
                seed=seed,
                camera_error=camera_error,
                step=step,
            )
    with cli.progress(f"answers of {case.subject}") as step:
        judged = [_judged(own, method, seed, step) for own in scenes]
    return trials(case.dataset_kind, judged), judged


def _judged(chosen: Scene, method: str, seed: int, step: Step) -> Judged:
    answers, _ = pipeline.run_method(method, chosen.tasks, num_starts=1, seed=seed, step=step)
    around = pipeline.surroundings(chosen.tasks, answers, method)
    options = registration.FIT_OPTIONS[method]
    assessed = pipeline.assess(chosen.tasks, answers, options, around, step=step)
    return Judged(chosen, answers, around, assessed)


def trials(kind: str, judged: Sequence[Judged]) -> Trials:
    """What was measured, and the errors. Tasks without an answer are left out."""
    rows = []
    for chosen, answers, _, assessed in judged:
        for i, (task, estimate) in enumerate(zip(chosen.tasks, answers, strict=True)):
            if pipeline.refusal(task, estimate):
                continue
            masd, distance, path = _errors(task, estimate)
            who = (kind, task.subject, task.level, task.pair, chosen.detector, chosen.severity)
            measured = (masd, assessed.features[i], assessed.vertex_std[i], distance)
            rows.append((*who, *measured, assessed.path_std[i], path))
    return Trials(*(np.array(column) for column in zip(*rows, strict=True)))


def _errors(task: Task, estimate: Estimate) -> tuple[float, np.ndarray, np.ndarray]:
    """MASD, signed distances of the vertices to the true surface, errors of the path points."""
    assert task.truth is not None
    found = pipeline.surface(task, estimate)
    masd = pipeline.grade(task, estimate)["masd_mm"]
    distance = planning.signed_distance(task.truth.field, found.vertices)
    paths = ssm.paths(task.model, found.vertices) - task.truth.paths
    return masd, np.asarray(distance, np.float32), np.asarray(paths, np.float32)


def joined(parts: Sequence[Trials]) -> Trials:
    """Several as one."""
    return Trials(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def save_trials(file: str | pathlib.Path, found: Trials) -> None:
    """Write to an npz without pickle."""
    np.savez_compressed(file, **found._asdict())


def load_trials(file: str | pathlib.Path) -> Trials:
    """Read what `save_trials` wrote; DataError if it is something else."""
    with data.open_arrays(
        file, otherwise="holds no trials, or is damaged", remedy="collect them again"
    ) as arrays:
        found = Trials(*(arrays[name] for name in Trials._fields))
    if found.features.shape[1] != len(pipeline.ALL_FEATURE_NAMES):
        raise data.DataError(f"{file} holds other features than today's: make it again")
    return found
