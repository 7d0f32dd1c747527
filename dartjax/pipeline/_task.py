"""Tasks (a vertebra to reconstruct), estimates (a result), and their grades."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from dartjax import data, metrics, registration, ssm, transforms
from dartjax.mesh import TriangleMesh
from dartjax.observations import Observations
from dartjax.registration import STATUS_MEANING, Reconstruction, auroc
from dartjax.simulation import TrueVertebra

FAILURE_MM = 2.0  # a MASD above this is a failure, whatever the status of the fit
MIN_FAILURES = 30  # an AUROC needs at least so many failures
NOT_FINITE, UNUSUAL_SIZE = 1, 7  # see STATUS_MEANING
MAX_LOG_SIZE = 0.12  # twice the standard deviation among people
ABSTENTION_PREFIX = "abstained: "  # of the status of an abstained task; the reason follows
# Tiers of starts that do not come from detections.
DISTURBED, GIVEN = "disturbed", "given"
CURVE = "curve"  # of the detected centres
GRADES = ("dice", "nsd_1mm", "hd95_mm", "masd_mm", "translation_error_mm", "rotation_error_deg")


@dataclasses.dataclass(frozen=True)
class Task:
    """Task: one vertebra to reconstruct in one set of views. `abstention` is the reason to give no
    result, independent of the fit; "" if there is none. `exclude` are people whom the prior of the
    spine must not have seen, besides the subject."""

    subject: str
    level: str
    pair: int
    model: ssm.ShapeModel
    observations: Observations
    start: transforms.SE3
    truth: TrueVertebra | None
    angle_deg: float  # between the views; 0 for one view
    tier: str = DISTURBED  # initialisation tier of the start
    abstention: str = ""
    landmark_residual_mm: float = float("nan")  # rms of the landmarks that agree with the start
    common_landmarks: int = 0  # detected in at least two views, correct or not
    detected: Observations | None = None  # all detections, with outliers of the start
    exclude: tuple[str, ...] = ()
    found: bool = False  # by the detector
    named: str = ""  # level by the detector; "" = `level`
    level_probability: float = float("nan")  # of the detector's name
    level_reliable: bool = True  # else the level only chooses the shape model

    @property
    def mask_in_every_view(self) -> bool:
        """Return whether every view has a mask of the vertebra."""
        return bool(np.asarray(self.observations.masks).any(axis=(1, 2)).all())


class Estimate(NamedTuple):
    """Result of one method for one task."""

    pose: transforms.SE3
    coefficients: jax.Array
    status: int
    mask_agreement: float


def indices_by_scene(tasks: Sequence[Task]) -> list[list[int]]:
    """Group the indices of tasks with the same subject and views."""
    scenes: dict[tuple[str, int], list[int]] = {}
    for i, task in enumerate(tasks):
        scenes.setdefault((task.subject, task.pair), []).append(i)
    return list(scenes.values())


def spine_order(tasks: Sequence[Task]) -> registration.SpineOrder:
    """Make the order of the vertebrae of one scene, all present."""
    prior = _spine_prior((tasks[0].subject, *tasks[0].exclude))
    return registration.order_of([task.named or task.level for task in tasks], prior)


@functools.cache
def _spine_prior(without: tuple[str, ...]) -> ssm.SpinePrior:
    return data.load_spine_prior(exclude=without)


def estimate_of(result: Reconstruction) -> Estimate:
    """Convert the result of a fit to an estimate, with status NOT_FINITE if it is not finite."""
    leaves = [*jax.tree.leaves(result.pose), result.coefficients]
    finite = all(np.isfinite(np.asarray(leaf)).all() for leaf in leaves)
    return Estimate(
        result.pose,
        result.coefficients,
        int(result.status) if finite else NOT_FINITE,
        float(jnp.min(result.mask_agreement)),
    )


def flag_unusual_sizes(tasks: Sequence[Task], estimates: Sequence[Estimate]) -> list[Estimate]:
    """Flag the estimates of a scene if its vertebrae are on average more than 12 % larger or
    smaller than the means of their levels. This holds for one person in 25, and cannot be
    distinguished from a pixel spacing that is wrong by 20 %."""
    sizes = [_log_size(t.model, e.coefficients) for t, e in zip(tasks, estimates, strict=True)]
    sizes = np.array([float(size) for size in sizes])
    checked = list(estimates)
    for members in indices_by_scene(tasks):
        known = sizes[members][np.isfinite(sizes[members])]
        if known.size and abs(known.mean()) > MAX_LOG_SIZE:
            for i in members:
                status = estimates[i].status or UNUSUAL_SIZE
                checked[i] = estimates[i]._replace(status=status)
    return checked


def no_answer_reason(task: Task, estimate: Estimate) -> str:
    """Give the reason why a task has no result; "" if it has one (which may be flagged)."""
    return task.abstention or (STATUS_MEANING[NOT_FINITE] if estimate.status == NOT_FINITE else "")


def status_text(task: Task, estimate: Estimate) -> str:
    """Describe the status of an estimate in words."""
    return (
        ABSTENTION_PREFIX + task.abstention if task.abstention else STATUS_MEANING[estimate.status]
    )


def start_estimate(task: Task) -> Estimate:
    """Make the estimate of the start itself: its pose with the mean shape."""
    return Estimate(task.start, jnp.zeros(task.model.num_modes), 0, float("nan"))


def oracle_estimate(task: Task) -> Estimate:
    """Make the estimate of the oracle: the best fit of the shape model to the true surface."""
    assert task.truth is not None
    oracle = task.truth.oracle
    return Estimate(oracle.pose, oracle.coefficients, 0, float("nan"))


def estimated_surface(task: Task, estimate: Estimate) -> TriangleMesh:
    """Compute the estimated surface in world mm."""
    return TriangleMesh(
        ssm.posed(task.model, estimate.pose, estimate.coefficients), task.model.faces
    )


def grade_estimate(task: Task, estimate: Estimate) -> dict[str, Any]:
    """Compute Dice, NSD at 1 mm, HD95 and MASD against the mask of the CT, and the pose error; NaN
    with `<key>_reason` if there is no result."""
    assert task.truth is not None
    if reason := no_answer_reason(task, estimate):
        return {k: v for key in GRADES for k, v in ((key, np.nan), (f"{key}_reason", reason))}
    values = metrics.reconstruction_metrics(
        estimated_surface(task, estimate), task.truth.surface, task.truth.solid
    )
    shift, turn = metrics.pose_error(estimate.pose, task.truth.pose)
    return {**values, "translation_error_mm": shift, "rotation_error_deg": turn}


def finite_mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """Compute the mean of a value over the rows where it is finite; NaN if there are none."""
    values = np.array([row[key] for row in rows], float)
    return float(np.mean(values[np.isfinite(values)])) if np.isfinite(values).any() else np.nan


def failure_auroc(
    score: Float[np.ndarray, " case"],
    failed: Bool[np.ndarray, " case"],
    key: str = "failure_auroc",
) -> dict[str, Any]:
    """Compute the AUROC of a `score`, higher for worse results, for failures (MASD above 2 mm).
    NaN with the reason if there are fewer than 30 failures or no successes."""
    if failed.sum() < MIN_FAILURES or failed.all():
        reason = (
            f"{int(failed.sum())} of {len(failed)} results have a MASD above {FAILURE_MM:g} mm; "
            f"an AUROC needs at least {MIN_FAILURES} failures and at least one success"
        )
        return {key: float("nan"), f"{key}_reason": reason}
    return {key: auroc(score, failed)}


_log_size = jax.jit(ssm.log_size)
