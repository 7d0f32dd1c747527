"""A vertebra to reconstruct, an answer to it, and its grade."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from dartjax import metrics, ssm, transforms
from dartjax.mesh import TriangleMesh
from dartjax.observations import Observations
from dartjax.registration import STATUS_MEANING, Reconstruction, auroc
from dartjax.simulation import TrueVertebra

FAILURE_MM = 2.0  # a MASD above this is a failure, whatever the fit says of itself
MIN_FAILURES = 30  # fewer say nothing of how well failures are told apart
NOT_FINITE, UNUSUAL_SIZE = 1, 7  # see STATUS_MEANING
MAX_LOG_SIZE = 0.12  # twice the standard deviation among people
ABSTENTION_PREFIX = (
    "abstained: "  # begins the status of a task without an answer, before the reason
)
# Tiers of a start that was not found from detections.
DISTURBED, GIVEN = "disturbed", "given"
GRADES = ("dice", "nsd_1mm", "hd95_mm", "masd_mm", "translation_error_mm", "rotation_error_deg")


@dataclasses.dataclass(frozen=True)
class Task:
    """One vertebra in one set of views. `abstention` says why no answer is given whatever the fit
    may say; "" if one may be."""

    subject: str
    level: str
    pair: int
    model: ssm.ShapeModel
    observations: Observations
    start: transforms.SE3
    truth: TrueVertebra | None
    angle_deg: float  # between the views; 0 for one view
    tier: str = DISTURBED  # of the start
    abstention: str = ""
    landmark_residual_mm: float = float("nan")  # rms of the landmarks that agree with the start
    common_landmarks: int = 0  # detected in at least two views, right or wrong
    detected: Observations | None = None  # with the landmarks that disagree with the start

    @property
    def mask_in_every_view(self) -> bool:
        """Was the vertebra itself found in every view?"""
        return bool(np.asarray(self.observations.masks).any(axis=(1, 2)).all())


class Estimate(NamedTuple):
    """One method's answer for one task."""

    pose: transforms.SE3
    coefficients: jax.Array
    status: int
    mask_agreement: float


def indices_by_scene(tasks: Sequence[Task]) -> list[list[int]]:
    """Indices of the tasks with the same subject and views."""
    scenes: dict[tuple[str, int], list[int]] = {}
    for i, task in enumerate(tasks):
        scenes.setdefault((task.subject, task.pair), []).append(i)
    return list(scenes.values())


def estimate_of(result: Reconstruction) -> Estimate:
    """The result of a fit as an answer; one that is not finite has status NOT_FINITE."""
    leaves = [*jax.tree.leaves(result.pose), result.coefficients]
    finite = all(np.isfinite(np.asarray(leaf)).all() for leaf in leaves)
    return Estimate(
        result.pose,
        result.coefficients,
        int(result.status) if finite else NOT_FINITE,
        float(jnp.min(result.mask_agreement)),
    )


def flag_unusual_sizes(tasks: Sequence[Task], estimates: Sequence[Estimate]) -> list[Estimate]:
    """The answers, those of a scene flagged if its vertebrae are on the whole more than 12 %
    larger or smaller than the means of their levels. Some people are (one in 25); a pixel spacing
    that is 20 % off looks no different."""
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
    """Why there is no answer to grade or to show; "" if there is one (which may be flagged)."""
    return task.abstention or (STATUS_MEANING[NOT_FINITE] if estimate.status == NOT_FINITE else "")


def status_text(task: Task, estimate: Estimate) -> str:
    """How it went, in words."""
    return (
        ABSTENTION_PREFIX + task.abstention if task.abstention else STATUS_MEANING[estimate.status]
    )


def start_estimate(task: Task) -> Estimate:
    """The untouched start: its pose, mean shape."""
    return Estimate(task.start, jnp.zeros(task.model.num_modes), 0, float("nan"))


def oracle_estimate(task: Task) -> Estimate:
    """The best fit of the same shape model to the true surface."""
    assert task.truth is not None
    oracle = task.truth.oracle
    return Estimate(oracle.pose, oracle.coefficients, 0, float("nan"))


def estimated_surface(task: Task, estimate: Estimate) -> TriangleMesh:
    """The estimated surface in world mm."""
    return TriangleMesh(
        ssm.posed(task.model, estimate.pose, estimate.coefficients), task.model.faces
    )


def grade_estimate(task: Task, estimate: Estimate) -> dict[str, Any]:
    """Dice, NSD at 1 mm, HD95 and MASD against the CT's own mask, and the pose error; NaN with
    `<key>_reason` where there is no answer."""
    assert task.truth is not None
    if reason := no_answer_reason(task, estimate):
        return {k: v for key in GRADES for k, v in ((key, np.nan), (f"{key}_reason", reason))}
    values = metrics.reconstruction_metrics(
        estimated_surface(task, estimate), task.truth.surface, task.truth.solid
    )
    shift, turn = metrics.pose_error(estimate.pose, task.truth.pose)
    return {**values, "translation_error_mm": shift, "rotation_error_deg": turn}


def finite_mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """Mean over the rows of a value where it is finite; NaN when there are none."""
    values = np.array([row[key] for row in rows], float)
    return float(np.mean(values[np.isfinite(values)])) if np.isfinite(values).any() else np.nan


def failure_auroc(
    doubt: Float[np.ndarray, " case"],
    failed: Bool[np.ndarray, " case"],
    key: str = "failure_auroc",
) -> dict[str, Any]:
    """How well `doubt` tells the failures (MASD above 2 mm) from the rest. Null with the reason
    when there are fewer than 30 failures or no successes."""
    if failed.sum() < MIN_FAILURES or failed.all():
        reason = (
            f"{int(failed.sum())} of {len(failed)} answers have a MASD above {FAILURE_MM:g} mm; "
            f"at least {MIN_FAILURES}, and not all, are needed"
        )
        return {key: float("nan"), f"{key}_reason": reason}
    return {key: auroc(doubt, failed)}


_log_size = jax.jit(ssm.log_size)
