"""Tasks of one set of views, from a caller's levels, observations and starts."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dartjax import data
from dartjax.anatomy import LABEL_OF_LEVEL, label_of
from dartjax.image import Radiograph
from dartjax.observations import Detection, Observations
from dartjax.pipeline._options import ReconstructOptions
from dartjax.pipeline._own_xrays import (
    Start,
    initial_pose,
    task_from_observations,
    task_from_radiographs,
)
from dartjax.pipeline._starts import tasks_of_detections
from dartjax.pipeline._task import GIVEN, Task
from dartjax.registration import CROP_PIXELS
from dartjax.ssm import ShapeModel


def spine_tasks(
    radiographs: Sequence[Radiograph],
    levels: Sequence[str] | None,
    observations: Mapping[str, Detection | Observations] | None,
    starts: Mapping[str, Start] | None,
    options: ReconstructOptions,
) -> tuple[list[Task], list[str]]:
    """Make the tasks of the vertebrae to reconstruct, from head to foot, and warnings about the
    views.

    DataError for input that `reconstruct` does not accept.
    """
    seen, given = dict(observations or {}), dict(starts or {})
    wanted = _wanted_levels(levels, seen, given)
    _check_radiographs(radiographs)
    warnings = data.check_views([radiograph.camera for radiograph in radiographs])
    models = {
        level: data.load_shape_model(level, exclude=options.exclude, path=options.shape_models)
        for level in wanted
    }
    detections = {
        level: found for level in wanted if isinstance(found := seen.get(level), Detection)
    }
    tasks = _detected(models, detections, radiographs)
    for level in wanted:
        evidence = seen.get(level)
        if isinstance(evidence, Observations):
            _check_crops(level, evidence, len(radiographs))
            tasks[level] = task_from_observations(radiographs, level, models[level], evidence)
        if level in given:
            tasks[level] = _with_start(
                tasks.get(level), radiographs, level, models[level], given[level]
            )
    exclude = tuple(options.exclude)
    return [dataclasses.replace(tasks[level], exclude=exclude) for level in wanted], warnings


def _wanted_levels(
    levels: Sequence[str] | None, seen: Mapping[str, object], given: Mapping[str, object]
) -> list[str]:
    """Collect the levels to reconstruct, from head to foot."""
    available = {*seen, *given}
    if not available:
        raise data.DataError(
            "no observations and no starts are given: give observations (the detections of each "
            "vertebra) or starts (an initial estimate of each), by level"
        )
    wanted = available if levels is None else set(levels)
    for level in wanted:
        label_of(level)
    if missing := sorted(wanted - available):
        raise data.DataError(
            f"observations and starts do not contain {', '.join(missing)}, only "
            f"{', '.join(_from_head_to_foot(available))}"
        )
    if not wanted:
        raise data.DataError("levels is empty: name at least one level, or omit it for all levels")
    return _from_head_to_foot(wanted)


def _from_head_to_foot(levels: Iterable[str]) -> list[str]:
    order = list(LABEL_OF_LEVEL)
    return sorted(levels, key=lambda level: order.index(level) if level in order else -1)


def _check_radiographs(radiographs: Sequence[Radiograph]) -> None:
    for number, radiograph in enumerate(radiographs, 1):
        image, size = np.asarray(radiograph.image), radiograph.camera.image_size
        if image.shape != tuple(size):
            raise data.DataError(
                f"radiograph {number} is {image.shape} (height, width), but the image_size of its "
                f"camera is {tuple(size)}: correct image_size, do not resize the image"
            )
        if not np.isfinite(image).all():
            count = int((~np.isfinite(image)).sum())
            raise data.DataError(
                f"radiograph {number}: {count} pixels are NaN or infinite: repair or fill them"
            )


def _detected(
    models: Mapping[str, ShapeModel],
    detections: Mapping[str, Detection],
    radiographs: Sequence[Radiograph],
) -> dict[str, Task]:
    for level, detection in detections.items():
        if len(detection.masks) != len(radiographs) or len(detection.sigma) != len(radiographs):
            raise data.DataError(
                f"{level}: the detection has {len(detection.masks)} views, but there are "
                f"{len(radiographs)} radiographs"
            )
    if not detections:
        return {}
    tasks = tasks_of_detections(models, detections, radiographs)
    return {task.level: task for task in tasks}


def _check_crops(level: str, seen: Observations, num_views: int) -> None:
    expected = (num_views, CROP_PIXELS, CROP_PIXELS)
    if seen.images.shape != expected:
        raise data.DataError(
            f"{level}: observations must be crops of shape {expected}, one per radiograph, not "
            f"{seen.images.shape}: make them with registration.crop_cameras and "
            "registration.observe"
        )


def _with_start(
    task: Task | None,
    radiographs: Sequence[Radiograph],
    level: str,
    model: ShapeModel,
    initial: Start,
) -> Task:
    """Make a task with the caller's start, and with its observations if there are any."""
    if task is None:
        return task_from_radiographs(radiographs, level, model, initial)[0]
    return dataclasses.replace(task, start=initial_pose(initial, model)[0], tier=GIVEN)
