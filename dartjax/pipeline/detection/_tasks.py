"""Tasks of the vertebrae that the detector finds, with or without a known ground truth."""

import dataclasses
from collections.abc import Collection, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import camera as cameras
from dartjax import data
from dartjax._progress import Progress, no_progress
from dartjax.image import Radiograph
from dartjax.observations import NUM_LANDMARKS, Detection
from dartjax.pipeline._networks import check_not_trained_on, detector_folder, landmark_folder
from dartjax.pipeline._options import ReconstructOptions
from dartjax.pipeline._spine_tasks import spine_tasks
from dartjax.pipeline._starts import improve_starts, tasks_of_detections
from dartjax.pipeline._task import CURVE, Task
from dartjax.pipeline.detection._find import find_spine
from dartjax.simulation import TrueVertebra

# Errors of starts on the curve of the centres: turn (rad) and shift (mm), about x, y and z.
_CURVE_SIGMA = np.array([0.12, 0.12, 0.2, 4.0, 4.0, 4.0])
_TRUSTED_F1 = 0.95  # of a detector whose vertebrae need no warning
_SAME_VERTEBRA_MM = 15.0  # largest distance of a found centre from the true one
MISSED = "no vertebra was found here in both views"


def found_tasks(
    radiographs: Sequence[Radiograph],
    levels: Collection[str] | None,
    options: ReconstructOptions,
    progress: Progress = no_progress,
) -> tuple[list[Task], list[str]]:
    """Make the tasks of all vertebrae that the detector finds, and warnings.

    DataError as `find_spine` raises, and for a detector that was trained on an excluded person."""
    check_not_trained_on(detector_folder(options.detector), options.exclude, "detector")
    check_not_trained_on(landmark_folder(options.landmarks), options.exclude, "landmark")
    found = find_spine(
        radiographs,
        levels=levels,
        weights=options.detector,
        landmarks=options.landmarks,
        exclude=options.exclude,
        progress=progress,
    )
    tasks, warnings = spine_tasks(radiographs, None, found.detections, found.starts, options)
    told = [
        dataclasses.replace(
            task,
            tier=CURVE,
            found=True,
            named=task.level,
            level_probability=found.probability[task.level],
            level_reliable=found.named,
        )
        for task in tasks
    ]
    warnings = [*warnings, *found.warnings, *_doubt(options.detector)]
    if not told or landmark_folder(options.landmarks) is None:
        return told, warnings
    with progress("starts") as step:
        return improve_starts(told, _CURVE_SIGMA, step=step), warnings


def _doubt(detector: str | None) -> list[str]:
    """Warn of a detector that often finds the wrong place."""
    f1 = float(data.read_card(detector_folder(detector))["quality"]["f1"])
    if f1 >= _TRUSTED_F1:
        return []
    return [
        f"the detector is not trained to the end (F1 {f1:.2f} on its validation): vertebrae may be "
        "wrong or missing, and their failure probability is unknown; compare every surface with "
        "the radiographs, or give starts"
    ]


def tasks_of_truths(
    tasks: Sequence[Task],
    truths: Sequence[TrueVertebra],
    radiographs: Sequence[Radiograph],
    *,
    subject: str,
    pair: int,
) -> tuple[list[Task], list[TrueVertebra]]:
    """Assign found vertebrae to true ones by the nearest centre within 15 mm, one to one.

    Returns the tasks, with `level` the true one and `named` the found one, and the true vertebrae
    that both views show but that were not found. Found vertebrae without a true one are left out.
    """
    where = np.array([np.asarray(task.start.translation(), float) for task in tasks])
    true = np.array([np.asarray(each.pose.translation(), float) for each in truths])
    away = np.linalg.norm(where[:, None] - true[None], axis=-1) if len(tasks) else np.zeros((0, 0))
    partner: dict[int, int] = {}
    while away.size and away.min() <= _SAME_VERTEBRA_MM:
        i, j = np.unravel_index(np.argmin(away), away.shape)
        partner[int(j)] = int(i)
        away[i], away[:, j] = np.inf, np.inf
    matched = [
        dataclasses.replace(
            tasks[partner[j]], subject=subject, level=truth.level, pair=pair, truth=truth
        )
        for j, truth in enumerate(truths)
        if j in partner
    ]
    missed = [
        truth
        for j, truth in enumerate(truths)
        if j not in partner and _is_shown(true[j], radiographs)
    ]
    return matched, missed


def missed_task(
    truth: TrueVertebra, radiographs: Sequence[Radiograph], *, subject: str, pair: int
) -> Task:
    """Make the task of a true vertebra that was not found: without evidence, and abstained."""
    count = len(radiographs)
    nothing = [
        Radiograph(jnp.zeros((8, 8)), dataclasses.replace(each.camera, image_size=(8, 8)))
        for each in radiographs
    ]
    empty = Detection(
        np.zeros((count, NUM_LANDMARKS, 2)), np.full((count, NUM_LANDMARKS), np.inf), tuple(nothing)
    )
    (task,) = tasks_of_detections(
        {truth.level: truth.model}, {truth.level: empty}, radiographs, subject=subject, pair=pair
    )
    return dataclasses.replace(task, truth=truth, tier=CURVE, found=True, abstention=MISSED)


def _is_shown(point: Float[np.ndarray, "3"], radiographs: Sequence[Radiograph]) -> bool:
    """Return whether all radiographs show a point."""
    at = jnp.asarray(point, jnp.float32)[None]
    for radiograph in radiographs:
        height, width = radiograph.camera.image_size
        u, v = np.asarray(cameras.project(radiograph.camera, at))[0]
        if not (0.0 <= u <= width and 0.0 <= v <= height):
            return False
    return True
