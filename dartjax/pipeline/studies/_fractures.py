"""Study of fractures: fits with the fracture modes off and on, and heights of the bodies."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from dartjax import data, mesh, registration, simulation, ssm, transforms
from dartjax._progress import Progress, no_progress
from dartjax.mesh import TriangleMesh
from dartjax.pipeline._batch import fit_arguments, run_cases
from dartjax.pipeline._task import Estimate, Task, estimated_surface, grade_estimate, status_text
from dartjax.registration import fit
from dartjax.simulation import Disturbance

MODES_OFF, MODES_ON = "fracture modes off", "fracture modes on"
OCCUPANCY_SPACING_MM = 0.5
_LOSS_SD = 0.2  # loss of height of one standard deviation of a fracture mode
# Where a height is measured, as a share of the distance from the middle of the body to its front.
BODY_PLACES: Mapping[str, float] = {"anterior": 0.6, "middle": 0.0}


class FractureAnswer(NamedTuple):
    """Task with the estimate of a fit."""

    task: Task
    estimate: Estimate


def fracture_tasks(
    case: data.Case,
    fractured: Sequence[str],
    num_intact: int,
    seed: int,
    progress: Progress = no_progress,
    num_pairs: int = 1,
) -> list[Task]:
    """Make the tasks of a subject in each pair of views: the complete `fractured` levels, and
    `num_intact` intact levels spread evenly along the spine."""
    levels = [level for level in fractured if level in case.levels]
    others = [level for level in case.levels if level not in fractured]
    places = np.linspace(0, len(others) - 1, num_intact + 2)[1:-1]
    levels += [others[round(place)] for place in places] if others else []
    with progress(f"true shapes of {case.subject}", len(levels)) as step:
        known = simulation.true_vertebrae(case, levels, step)
    return [task for pair in range(num_pairs) for task in _tasks_of_pair(case, known, pair, seed)]


def _tasks_of_pair(
    case: data.Case, known: Sequence[simulation.TrueVertebra], pair: int, seed: int
) -> list[Task]:
    number = int("".join(filter(str.isdigit, case.subject)) or 0)
    rng = np.random.default_rng([seed, number, *([pair] if pair else [])])
    isocenter = simulation.middle_of(known)
    setup = simulation.CarmSetup()
    radiographs = simulation.simulate(
        case.ct, simulation.random_views(rng, isocenter, setup), setup
    )
    angle = simulation.pair_angles_deg([r.camera for r in radiographs])[0]
    tasks = []
    for truth in known:
        seen, start = simulation.disturbed_observations(truth, radiographs, rng, Disturbance())
        tasks.append(Task(case.subject, truth.level, pair, truth.model, seen, start, truth, angle))
    return tasks


def fit_fractures(
    tasks: Sequence[Task], arm: str, progress: Progress = no_progress
) -> list[FractureAnswer]:
    """Fit every vertebra separately, with the fracture modes off or on (`arm`)."""
    tasks = with_fracture_modes(tasks) if arm == MODES_ON else list(tasks)
    options = dataclasses.replace(
        registration.FIT_OPTIONS[registration.ALONE],
        nonnegative_modes=len(ssm.FRACTURE_NAMES) if arm == MODES_ON else 0,
    )
    with progress(f"fits, {arm}") as step:
        results, _ = run_cases(
            lambda model, seen, start: fit(model, seen, start, options),
            *fit_arguments(tasks),
            step=step,
        )
    return [
        FractureAnswer(task, Estimate(found.pose, found.coefficients, int(found.status), np.nan))
        for task, found in zip(tasks, results, strict=True)
    ]


def with_fracture_modes(tasks: Sequence[Task]) -> list[Task]:
    """Append the fracture modes to the shape models of the tasks."""
    extended = jax.jit(lambda model: ssm.with_fracture_modes(model, _LOSS_SD))
    return [dataclasses.replace(task, model=extended(task.model)) for task in tasks]


def fracture_cases(
    tasks: Sequence[Task],
    fractures: Sequence[Mapping[str, Any]],
    answers: Mapping[str, Sequence[FractureAnswer]],
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Grade every vertebra in every arm, with the errors of its body heights. `fractures` holds
    kind, grade and loss of each (see `synthverse.subject_facts`), empty if intact."""
    cases = []
    with progress("grades", len(tasks)) as step:
        for i, (task, fracture) in enumerate(zip(tasks, fractures, strict=True)):
            assert task.truth is not None
            true = body_heights(task.truth.surface, task.truth.pose)
            for arm, given in answers.items():
                cases.append(_case(given[i], fracture, arm, true))
            step(f"{task.subject} {task.level}")
    return cases


def _case(
    answer: FractureAnswer, fracture: Mapping[str, Any], arm: str, true: Mapping[str, float]
) -> dict[str, Any]:
    task, estimate = answer
    heights = body_heights(estimated_surface(task, estimate), estimate.pose)
    losses = np.asarray(estimate.coefficients)[-3:] * _LOSS_SD if arm == MODES_ON else np.zeros(3)
    return {
        "subject": task.subject,
        "level": task.level,
        "kind": fracture.get("kind", "intact"),
        "grade": fracture.get("grade", 0),
        "true_loss": fracture.get("loss", 0.0),
        "arm": arm,
        "status": status_text(task, estimate),
        "angle_deg": task.angle_deg,
        "landmarks_trusted": task.truth is not None and task.truth.landmarks is not None,
        **grade_estimate(task, estimate),
        **{f"{place}_height_mm": true[place] for place in true},
        **{f"{place}_height_error_mm": heights[place] - true[place] for place in true},
        **{
            f"{name}_loss": float(loss)
            for name, loss in zip(ssm.FRACTURE_NAMES, losses, strict=True)
        },
    }


def body_heights(surface: TriangleMesh, pose: transforms.SE3) -> dict[str, float]:
    """Measure the height of the bone along z of the vertebra frame `pose` (T_world_vertebra), mm:
    the mean over columns within 4 mm of the midline, at 0.6 of the distance to the anterior wall
    and in the middle of the body, each over 3 mm."""
    solid, origin = vertebra_occupancy(surface, pose)
    x, y = (origin[i] + OCCUPANCY_SPACING_MM * np.arange(solid.shape[i]) for i in (0, 1))
    column = solid[np.abs(x) <= 4.0].sum(2).mean(0) * OCCUPANCY_SPACING_MM  # by y
    front = y[np.flatnonzero(column > 4.0)[-1]]
    return {
        place: float(column[np.abs(y - share * front) <= 1.5].mean())
        for place, share in BODY_PLACES.items()
    }


def vertebra_occupancy(
    surface: TriangleMesh, pose: transforms.SE3
) -> tuple[Bool[np.ndarray, "x y z"], Float[np.ndarray, "3"]]:
    """Compute the occupancy of a surface in the vertebra frame `pose` (T_world_vertebra) on a grid
    of `OCCUPANCY_SPACING_MM`, and the centre of its first voxel, mm."""
    local = transforms.apply(pose.inverse(), jnp.asarray(surface.vertices, jnp.float32))
    vertices = np.asarray(local, np.float64)
    spacing = OCCUPANCY_SPACING_MM
    origin = vertices.min(0) - 2.0 * spacing
    extent = np.ceil((vertices.max(0) - origin) / spacing).astype(int) + 3
    shape = (int(extent[0]), int(extent[1]), int(extent[2]))
    return mesh.voxelize(vertices, np.asarray(surface.faces), origin, shape, spacing), origin
