"""Tasks and starts from the detections of the vertebrae in a set of views.

Detections are simulated by `simulation.Detector` or given by the caller. The ground truth is used
only to simulate detections: crops are centred on detections, never on the ground truth.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import camera as cameras
from dartjax import registration, simulation, transforms
from dartjax._progress import Step, no_step
from dartjax.camera import Camera
from dartjax.image import Radiograph, resample
from dartjax.observations import Detection, Observations
from dartjax.pipeline._batch import run_cases
from dartjax.pipeline._task import Task, indices_by_scene, spine_order
from dartjax.registration import (
    ABSTAINED,
    CROP_PIXELS,
    CROP_WIDTH_MM,
    TIERS,
    ExpectedPose,
    Initialisation,
    agreeing_landmarks,
    detected_crop,
    expected_poses,
    initialise,
    mask_centroid,
    no_expected_pose,
    observe,
    stack,
    triangulate,
)
from dartjax.simulation import (
    Detector,
    TrueVertebra,
    detect,
)
from dartjax.ssm import ShapeModel

_GOOD_TIERS = 2  # starts of this initialisation tier or a better one can help neighbours
_CHUNK = 16
_triangulate = jax.jit(triangulate)


def detected_centers(detection: Detection, views: Sequence[Camera]) -> Float[np.ndarray, "view 2"]:
    """Compute the position of the vertebra in each radiograph (px): the centroid of its mask, else
    the mean of its landmarks, else NaN."""
    centers = np.full((len(views), 2), np.nan)
    for k, (mask, view) in enumerate(zip(detection.masks, views, strict=True)):
        seen = np.isfinite(detection.sigma[k])
        centers[k] = mask_centroid(np.asarray(mask.image), mask.camera, view)
        if np.isnan(centers[k]).any() and seen.any():
            centers[k] = detection.landmarks[k, seen].mean(0)
    return centers


def expected_places(
    levels: Sequence[str],
    centers: Float[np.ndarray, "vertebra view 2"],
    views: Sequence[Camera],
    along: Mapping[str, float],
) -> Float[np.ndarray, "vertebra 3"]:
    """Estimate the position of each vertebra, world mm: triangulated if two views show it, else
    interpolated between the other vertebrae by its position along the spine, else where the beams
    cross."""
    pixels = jnp.asarray(np.nan_to_num(centers).swapaxes(0, 1), jnp.float32)
    seen = np.isfinite(centers).all(-1)
    sigma = jnp.where(jnp.asarray(seen.T), 1.0, jnp.inf)
    # Rays do not depend on the image size, which is a static field of Camera: make it equal so that
    # the cameras can be stacked.
    same_size = [dataclasses.replace(view, image_size=views[0].image_size) for view in views]
    stacked = registration.stack(same_size)
    points = np.array(_triangulate(stacked, pixels, sigma).points, float)
    known = seen.sum(1) >= 2
    position = np.array([along[level] for level in levels])
    if known.sum() >= 2:
        for i in np.flatnonzero(~known):
            points[i] = _on_the_spine(position[i], position[known], points[known])
    elif known.any():
        down = np.array([0.0, 0.0, -1.0])
        points[~known] = points[known] + (position[~known] - position[known])[:, None] * down
    else:
        middles = jnp.stack([view.principal_point for view in views])[:, None]
        points[:] = _triangulate(stacked, middles, jnp.ones((len(views), 1))).points
    return points


def detected_observations(
    detection: Detection,
    radiographs: Sequence[Radiograph],
    centers: Float[np.ndarray, "view 2"],
    place: Float[np.ndarray, "3"],
) -> Observations:
    """Make the observations of one vertebra in crops centred on its detection; in a view without a
    detection, on its expected position `place` (world mm)."""
    views = [r.camera for r in radiographs]
    point = jnp.asarray(place, jnp.float32)
    crops = [
        detected_crop(view, center, point, width_mm=CROP_WIDTH_MM, num_pixels=CROP_PIXELS)
        for view, center in zip(views, centers, strict=True)
    ]
    masks = [
        np.clip(np.asarray(resample(mask, crop).image), 0.0, 1.0)
        for mask, crop in zip(detection.masks, crops, strict=True)
    ]
    landmarks = [
        cameras.reproject(pixels, view, crop)
        for pixels, view, crop in zip(detection.landmarks, views, crops, strict=True)
    ]
    return dataclasses.replace(
        observe(radiographs, crops, masks=np.stack(masks)),
        landmarks=jnp.asarray(np.stack(landmarks), jnp.float32),
        landmark_sigma=jnp.asarray(detection.sigma, jnp.float32),
    )


def detected_tasks(
    subject: str,
    truths: Sequence[TrueVertebra],
    radiographs: Sequence[Radiograph],
    *,
    detector: Detector,
    seed: int,
    pair: int,
    step: Step = no_step,
) -> list[Task]:
    """Make tasks from simulated detections of vertebrae with ground truth. Every vertebra has its
    own random numbers."""
    found = {}
    for truth in truths:
        rng = np.random.default_rng([seed, pair, *truth.level.encode()])
        found[truth.level] = detect(truth, radiographs, detector, rng)
        step(truth.level)
    models = {truth.level: truth.model for truth in truths}
    tasks = tasks_of_detections(models, found, radiographs, subject=subject, pair=pair)
    return [
        dataclasses.replace(task, truth=truth) for task, truth in zip(tasks, truths, strict=True)
    ]


def tasks_of_detections(
    models: Mapping[str, ShapeModel],
    detections: Mapping[str, Detection],
    radiographs: Sequence[Radiograph],
    *,
    subject: str = "xrays",
    pair: int = 0,
) -> list[Task]:
    """Make a task for each detected level of one set of views, in the order of the detections
    (from head to foot). The start is the expected position with the patient's axes;
    `initialise_tasks` improves it."""
    views = [r.camera for r in radiographs]
    levels, found = list(detections), list(detections.values())
    centers = np.stack([detected_centers(detection, views) for detection in found])
    along = registration.positions_mm({level: models[level] for level in levels})
    where = expected_places(levels, centers, views, along)
    return [
        Task(
            subject=subject,
            level=level,
            pair=pair,
            model=models[level],
            observations=detected_observations(detection, radiographs, middle, place),
            start=transforms.SE3.from_translation(jnp.asarray(place, jnp.float32)),
            truth=None,
            angle_deg=first_angle_deg(views),
            common_landmarks=int((np.isfinite(detection.sigma).sum(0) >= 2).sum()),
        )
        for level, detection, middle, place in zip(levels, found, centers, where, strict=True)
    ]


def first_angle_deg(views: Sequence[Camera]) -> float:
    """Compute the angle between the beams of the first two views, deg; 0 for a single view."""
    return simulation.pair_angles_deg(views[:2])[0] if len(views) > 1 else 0.0


def initialise_tasks(tasks: Sequence[Task], *, step: Step = no_step) -> tuple[list[Task], float]:
    """Initialise the tasks; return them with their starts, and the seconds per vertebra after
    compilation.

    Vertebrae without enough landmarks (tiers 3 and 4) are initialised a second time with the pose
    that their neighbours in the same views suggest. If the evidence is still insufficient or
    inconsistent, the field `abstention` of the task states the reason.
    """
    found, seconds = _initialisations(tasks, [no_expected_pose()] * len(tasks), step)
    expected = _expected(tasks, found)
    again = [i for i, each in expected.items() if bool(each.known)]
    if again:
        better, more = _initialisations(
            [tasks[i] for i in again], [expected[i] for i in again], step, note="neighbours"
        )
        seconds += more
        found = list(found)
        for i, second in zip(again, better, strict=True):
            found[i] = second
    helped = [i in again for i in range(len(tasks))]
    started = [_started(*each) for each in zip(tasks, found, helped, strict=True)]
    return started, seconds / len(tasks)


def improve_starts(
    tasks: Sequence[Task], sigma: Float[np.ndarray, "6"], *, step: Step = no_step
) -> list[Task]:
    """Improve approximate starts by the landmarks and masks of the tasks.

    `sigma` are the standard deviations of a start, turn (rad) and shift (mm) in its axes. A task
    without enough landmarks, or whose landmarks contradict each other, keeps its start.
    """
    known, spread = jnp.asarray(True), jnp.asarray(sigma, jnp.float32)
    expected = [ExpectedPose(task.start, known, spread) for task in tasks]
    found, _ = _initialisations(tasks, expected, step)
    return [
        _started(task, each, helped=True) if int(each.tier) <= _GOOD_TIERS else task
        for task, each in zip(tasks, found, strict=True)
    ]


def _initialisations(
    tasks: Sequence[Task],
    expected: Sequence[ExpectedPose],
    step: Step,
    note: str = "first pass",
) -> tuple[list[Initialisation], float]:
    """Initialise all tasks in one batch; also return the seconds after compilation."""
    # On one device: singular value decompositions on several CPU devices at once can stall.
    return run_cases(
        initialise,
        [task.model for task in tasks],
        [task.observations for task in tasks],
        expected,
        step=lambda done: step(f"{note}: {done}"),
        chunk=_CHUNK,
        devices=jax.local_devices()[:1],
    )


def _expected(tasks: Sequence[Task], found: Sequence[Initialisation]) -> dict[int, ExpectedPose]:
    """Predict the pose of every task of a low tier from the others in the same views."""
    suggested = {}
    for members in indices_by_scene(tasks):
        good = np.array([int(found[i].tier) <= _GOOD_TIERS for i in members])
        if good.all():
            continue
        order = spine_order([tasks[i] for i in members])
        order = dataclasses.replace(order, present=jnp.asarray(good))
        expected = expected_poses(order, stack([found[i].pose for i in members]))
        for place in np.flatnonzero(~good):
            suggested[members[place]] = jax.tree.map(lambda leaf, at=place: leaf[at], expected)
    return suggested


def _started(task: Task, found: Initialisation, helped: bool) -> Task:
    tier = int(found.tier)
    return dataclasses.replace(
        task,
        observations=agreeing_landmarks(task.observations, found),
        # The pose of an abstained vertebra is unreliable: keep the expected position.
        start=task.start if tier == ABSTAINED else found.pose,
        tier=TIERS[tier],
        abstention=insufficient_evidence(task.observations, tier, helped),
        landmark_residual_mm=float(found.residual_mm),
        detected=task.observations,
    )


def insufficient_evidence(seen: Observations, tier: int, helped: bool) -> str:
    """Give the reason why the evidence is insufficient; "" if it is sufficient. `helped`:
    neighbours in the same views have determined the orientation of the vertebra."""
    if not np.isfinite(np.asarray(seen.images)).all():
        return "an X-ray has pixels that are not finite"
    if tier == ABSTAINED:
        return "too little was detected, or the pose would be turned by more than 66 degrees"
    if not np.asarray(seen.masks).any():
        return "no view has a mask, so the result cannot be checked"
    if tier > _GOOD_TIERS and not helped:
        return "too few landmarks, and no neighbour, to determine the orientation"
    return ""


def _on_the_spine(
    position: float, known: Float[np.ndarray, " n"], points: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "3"]:
    """Interpolate a polyline through n points at a position along it; extrapolate its first or last
    segment beyond its ends."""
    order = np.argsort(known)
    known, points = known[order], points[order]
    first = int(np.clip(np.searchsorted(known, position) - 1, 0, len(known) - 2))
    share = (position - known[first]) / (known[first + 1] - known[first])
    return (1.0 - share) * points[first] + share * points[first + 1]
