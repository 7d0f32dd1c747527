"""Reconstruction study of one subject: ground truth, X-rays, observations, starts, estimates."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dartjax import data, simulation
from dartjax._progress import Progress, no_progress
from dartjax.anatomy import LABEL_OF_LEVEL
from dartjax.image import Radiograph, Volume
from dartjax.pipeline._networks import check_networks, network_folders
from dartjax.pipeline._options import ReconstructOptions
from dartjax.pipeline._recipes import NEEDED_NETWORK, RECIPES, TRUE_ISOLATION, Fitter, run_method
from dartjax.pipeline._starts import detected_tasks, initialise_tasks
from dartjax.pipeline._task import Estimate, Task, start_estimate
from dartjax.pipeline.detection import found_tasks, missed_task, tasks_of_truths
from dartjax.render import xray_settings
from dartjax.simulation import Disturbance

# Quality assessment of a method's estimates: one object per task with the `probability` of failure,
# `path_std_mm` and `vertex_std_mm`; empty for a method to which it does not apply.
Assessor = Callable[[Sequence[Task], Sequence[Estimate], str], Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Study:
    """Settings of a reconstruction study; with the scans they determine all its numbers."""

    seed: int = 0
    pairs: int = 1
    levels: tuple[str, ...] = ()  # empty: all
    observations: str = "disturbed"
    detector: str = "standard"  # noise model of simulated observations
    detector_weights: str | None = None  # folder of the network of detected observations
    views: str = "random"
    recipe: str = "classical"
    baselines: bool = True
    extra: tuple[str, ...] = ()  # additional methods, such as those of an ablation
    restarts: int = 1
    xray_physics: bool = False
    surroundings: simulation.Surroundings = "none"
    ssm: str | None = None
    isolation: str | None = None  # folder of weights, or "packaged"
    similarity: str | None = None

    @property
    def weights(self) -> dict[str, str | None]:
        """Folders of the networks by name: those given, and the one that the recipe needs."""
        given = {"isolation": self.isolation, "similarity": self.similarity}
        return network_folders(given, NEEDED_NETWORK.get(self.headline))

    @property
    def headline(self) -> str:
        """Return the method of the recipe, whose estimates are the cases of the study."""
        return RECIPES[self.recipe]

    @property
    def methods(self) -> tuple[str, ...]:
        """Return all methods of the study, the headline last."""
        others = [name for name in RECIPES.values() if name != self.headline]
        missing = {name for name, need in NEEDED_NETWORK.items() if self.weights[need] is None}
        others = [name for name in others if name not in missing]
        baselines = (*others, TRUE_ISOLATION) if self.baselines else ()
        return (*baselines, *self.extra, self.headline)

    def seed_of(self, index: int) -> int:
        """Derive the seed of a subject from its index in the cohort; the first has the run's
        seed."""
        if index == 0:
            return self.seed
        return int(np.random.SeedSequence([self.seed, index]).generate_state(1)[0] >> 1)


@dataclasses.dataclass(frozen=True)
class Answers:
    """Tasks of one subject, and the estimates of every method in the same order."""

    tasks: Sequence[Task]
    estimates: Mapping[str, Sequence[Estimate]]
    seconds: Mapping[str, float]  # per vertebra, after compilation, with those of the start
    radiographs: Mapping[int, Sequence[Radiograph]]  # by pair
    assessments: Sequence[Any] = ()  # of the headline's estimates, one per task, see `Assessor`


def reconstruct_subject(
    case: data.Case,
    study: Study,
    seed: int,
    assessor: Assessor | None = None,
    *,
    others: Mapping[str, Fitter] = {},
    progress: Progress = no_progress,
) -> Answers:
    """Simulate all pairs of views of one subject and reconstruct it by every method of the study.

    `others` are the fitters of `Study.extra`. DataError for a subject that cannot be used, and for
    networks that were trained on it.
    """
    weights = study.weights
    check_networks(weights, [case.subject])
    with progress(f"true shapes of {case.subject}", len(case.levels)) as step:
        known = simulation.true_vertebrae(case, study.levels, step, study.ssm)
    with progress(f"surroundings of {case.subject}") as step:
        scene = simulation.scene_volume(case, known, study.surroundings)
        step(study.surroundings)
    tasks: list[Task] = []
    missed: list[Task] = []  # vertebrae that the detector did not find
    radiographs = {}
    shared = [part for _ in range(study.pairs) for part in simulation.seen_at_once(known)]
    for pair, part in enumerate(shared):
        rng = np.random.default_rng([seed, pair])
        radiographs[pair] = _simulate(case, scene, part, rng, pair, study, seed, progress)
        if study.observations == "detected":
            found, lost = _found(case, part, radiographs[pair], pair, study, progress)
            tasks, missed = tasks + found, missed + lost
        else:
            tasks += _tasks(case, part, radiographs[pair], rng, pair, study, seed, progress)
    if not tasks:
        raise data.DataError(f"{case.subject}: the detector found none of its vertebrae")
    tasks, seconds_to_start = _initialised(tasks, study, progress)
    estimates, seconds = {}, {}
    with progress("reconstruction") as step:
        for name in study.methods:
            estimates[name], seconds[name] = run_method(
                name,
                tasks,
                num_starts=study.restarts,
                seed=seed,
                step=step,
                weights=weights,
                others=others,
            )
            seconds[name] += seconds_to_start
    headline = study.headline
    assessments = assessor(tasks, estimates[headline], headline) if assessor else ()
    answers = Answers(tasks, estimates, seconds, radiographs, assessments)
    return _with_missed(answers, missed) if missed else answers


def _found(
    case: data.Case,
    known: Sequence[simulation.TrueVertebra],
    radiographs: Sequence[Radiograph],
    pair: int,
    study: Study,
    progress: Progress,
) -> tuple[list[Task], list[Task]]:
    """Make the tasks of the vertebrae that the detector finds, and those that it misses."""
    people = () if simulation.is_leak(case, study.ssm) else tuple(simulation.people_of(case))
    options = ReconstructOptions(
        shape_models=study.ssm, exclude=people, detector=study.detector_weights
    )
    try:
        tasks, _ = found_tasks(radiographs, None, options, progress)
    except data.DataError as error:
        with progress("detection") as step:
            step(f"nothing: {error}")
        tasks = []
    known_as = {"subject": case.subject, "pair": pair}
    tasks, lost = tasks_of_truths(tasks, known, radiographs, **known_as)
    return tasks, [missed_task(truth, radiographs, **known_as) for truth in lost]


def _with_missed(answers: Answers, missed: Sequence[Task]) -> Answers:
    """Add the missed vertebrae to the answers, in their place along the spine."""
    tasks = [*answers.tasks, *missed]
    rank = {level: i for i, level in enumerate(LABEL_OF_LEVEL)}
    order = sorted(range(len(tasks)), key=lambda i: (tasks[i].pair, rank[tasks[i].level]))

    def in_order(values: Sequence[Any], more: Sequence[Any]) -> list[Any]:
        joined = [*values, *more]
        return [joined[i] for i in order]

    unknown = [start_estimate(task) for task in missed]
    assessments = answers.assessments
    if assessments:
        nothing = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan, float), assessments[0])
        assessments = in_order(assessments, [nothing] * len(missed))
    return dataclasses.replace(
        answers,
        tasks=in_order(answers.tasks, missed),
        estimates={name: in_order(each, unknown) for name, each in answers.estimates.items()},
        assessments=assessments,
    )


def _simulate(
    case: data.Case,
    scene: Volume,
    known: Sequence[simulation.TrueVertebra],
    rng: np.random.Generator,
    pair: int,
    study: Study,
    seed: int,
    progress: Progress,
) -> list[Radiograph]:
    setup = simulation.CarmSetup()
    isocenter = simulation.middle_of(known)
    draw = simulation.random_views if study.views == "random" else simulation.ap_and_lateral
    views = draw(rng, isocenter, setup)
    data.check_views(views, scene)
    angles = ", ".join(f"{angle:.0f}" for angle in simulation.pair_angles_deg(views))
    with progress(f"X-rays of {case.subject}, pair {pair + 1}") as step:
        physics = xray_settings(num_samples=setup.num_samples) if study.xray_physics else None
        radiographs = simulation.simulate(scene, views, setup, physics=physics, seed=seed + pair)
        jax.block_until_ready(radiographs)
        step(f"two views {angles} deg apart")
    return radiographs


def _tasks(
    case: data.Case,
    known: Sequence[simulation.TrueVertebra],
    radiographs: Sequence[Radiograph],
    rng: np.random.Generator,
    pair: int,
    study: Study,
    seed: int,
    progress: Progress,
) -> list[Task]:
    with progress("observations", len(known)) as step:
        if study.observations == "simulated":
            return detected_tasks(
                case.subject,
                known,
                radiographs,
                detector=simulation.DETECTORS[study.detector],
                seed=seed,
                pair=pair,
                step=step,
            )
        return _disturbed_tasks(case, known, radiographs, rng, pair, step)


def _disturbed_tasks(
    case: data.Case,
    known: Sequence[simulation.TrueVertebra],
    radiographs: Sequence[Radiograph],
    rng: np.random.Generator,
    pair: int,
    step: Callable[[str], None],
) -> list[Task]:
    tasks = []
    angle = simulation.pair_angles_deg([r.camera for r in radiographs])[0]
    for truth in known:
        seen, start = simulation.disturbed_observations(truth, radiographs, rng, Disturbance())
        tasks.append(Task(case.subject, truth.level, pair, truth.model, seen, start, truth, angle))
        step(truth.level)
    return tasks


def _initialised(tasks: list[Task], study: Study, progress: Progress) -> tuple[list[Task], float]:
    """Initialise the tasks if observations are simulated; also return the seconds per vertebra."""
    if study.observations != "simulated":
        return tasks, 0.0
    with progress("starts") as step:
        return initialise_tasks(tasks, step=step)
