"""The rows of a reconstruction table: every method with the same start and evidence."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import metrics, ssm, transforms
from dartjax.mesh import TriangleMesh
from dartjax.observations import Observations
from dartjax.registration import (
    FitOptions,
    ObjectiveWeights,
    Reconstruction,
    fit,
    fit_from_starts,
    fit_landmarks,
    map_cases,
    moved_pose,
    stack,
)
from dartjax.render import local_gradient_ncc, ncc, xvr_similarity
from experiments.scene import CROP_WIDTH_MM, TrueVertebra

# Windows of about 5 mm at the pixel size of each scale (64 and 128 px over the crop).
_LOCAL = tuple(functools.partial(local_gradient_ncc, window=w, eps=0.03) for w in (3, 7))

OURS = "dartjax"
FIT_OPTIONS: dict[str, FitOptions] = {
    "landmarks+masks": FitOptions(similarity=_LOCAL, weights=ObjectiveWeights(similarity=0.0)),
    "ncc": FitOptions(similarity=(ncc,) * 2, weights=ObjectiveWeights(silhouette=0.0)),
    "xvr": FitOptions(similarity=(xvr_similarity,) * 2, weights=ObjectiveWeights(silhouette=0.0)),
    OURS: FitOptions(similarity=_LOCAL, crop_width_mm=CROP_WIDTH_MM),
}
# Shown in tables, in this order, between the start and the oracle.
BASELINES = ("landmarks", "landmarks+masks", "ncc", "xvr")


@dataclasses.dataclass(frozen=True)
class Task:
    """One vertebra in one set of views."""

    subject: str
    level: str
    pair: int
    model: ssm.ShapeModel
    observations: Observations
    start: transforms.SE3
    truth: TrueVertebra | None
    angle_deg: float  # between the views; 0 for one view


class Estimate(NamedTuple):
    """One method's answer for one task."""

    pose: transforms.SE3
    coefficients: jax.Array
    status: int
    mask_agreement: float


def run_method(
    name: str,
    tasks: Sequence[Task],
    *,
    num_starts: int,
    seed: int,
    step: Callable[[str], None],
) -> tuple[list[Estimate], float]:
    """Estimates of one method for all tasks, and its seconds per task after compilation."""
    stacked = [
        stack([getattr(t, key) for t in tasks]) for key in ("model", "observations", "start")
    ]
    keys = jax.random.split(jax.random.key(seed), len(tasks))
    clock: list[float] = []

    def on_chunk(done: int, total: int) -> None:
        clock.append(time.monotonic())
        step(f"{name}: {done}/{total}" if done else f"{name}: compiled")

    function = _method(name, num_starts)
    result = map_cases(function, *stacked, keys, on_chunk=on_chunk)
    estimates = [
        Estimate(
            jax.tree.map(lambda leaf, i=i: leaf[i], result.pose),
            result.coefficients[i],
            int(result.status[i]),
            float(jnp.min(result.mask_agreement[i])),
        )
        for i in range(len(tasks))
    ]
    return estimates, (clock[-1] - clock[0]) / len(tasks)


def _method(name: str, num_starts: int) -> Callable[..., Reconstruction]:
    if name == "landmarks":
        return lambda model, seen, start, _: _from_landmarks(model, seen, start)
    options = FIT_OPTIONS[name]
    if num_starts == 1:
        return lambda model, seen, start, _: fit(model, seen, start, options)
    return lambda model, seen, start, key: fit_from_starts(
        model, seen, start, options, num_starts=num_starts, key=key
    )


def _from_landmarks(
    model: ssm.ShapeModel, seen: Observations, start: transforms.SE3
) -> Reconstruction:
    parameters = fit_landmarks(model, seen, start)
    return Reconstruction(
        pose=moved_pose(start, parameters),
        coefficients=parameters.coefficients,
        loss=jnp.zeros(()),
        history=jnp.zeros(1),
        mask_agreement=jnp.ones(len(seen.view_valid)),
        status=jnp.zeros((), jnp.int32),
    )


def start_estimate(task: Task) -> Estimate:
    """The untouched start: disturbed pose, mean shape."""
    return Estimate(task.start, jnp.zeros(task.model.num_modes), 0, float("nan"))


def oracle_estimate(task: Task) -> Estimate:
    """The best fit of the same shape model to the true surface."""
    assert task.truth is not None
    oracle = task.truth.oracle
    return Estimate(oracle.pose, oracle.coefficients, 0, float("nan"))


def surface(task: Task, estimate: Estimate) -> TriangleMesh:
    """The estimated surface in world mm."""
    return TriangleMesh(
        ssm.posed(task.model, estimate.pose, estimate.coefficients), task.model.faces
    )


def grade(task: Task, estimate: Estimate) -> dict[str, float]:
    """Dice, NSD at 1 mm, HD95 and MASD against the CT's own mask, and the pose error."""
    assert task.truth is not None
    values = metrics.reconstruction_metrics(
        surface(task, estimate), task.truth.surface, task.truth.solid
    )
    shift, turn = metrics.pose_error(estimate.pose, task.truth.pose)
    return {**values, "translation_error_mm": shift, "rotation_error_deg": turn}


def mean_of(rows: Sequence[dict[str, float]], key: str) -> float:
    """Mean over the rows where the value is finite; NaN when there are none."""
    values = np.array([row[key] for row in rows], float)
    return float(np.mean(values[np.isfinite(values)])) if np.isfinite(values).any() else np.nan
