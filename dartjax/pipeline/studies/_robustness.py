"""Starts, fits and grades of the robustness curves, with refined cameras in one of the arms."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dartjax import registration, transforms
from dartjax._progress import Progress, Step, no_progress, no_step
from dartjax.pipeline._recipes import run_method
from dartjax.pipeline._starts import initialise_tasks
from dartjax.pipeline._task import Estimate, Task, grade_estimate, no_answer_reason, status_text
from dartjax.pipeline.studies._robustness_scenes import (
    CAMERA_CURVES,
    REFINED,
    RobustnessScene,
    tasks_with_motions,
)
from dartjax.registration import CAMERA_STATUS, CameraPrior, refine_cameras, stack

_refine = jax.jit(refine_cameras)


@dataclasses.dataclass(frozen=True)
class CameraResidual:
    """Error of the second view's camera after refinement."""

    angle_left_deg: float
    shift_left_mm: float
    status: str


def start_robustness_scenes(
    scenes: Sequence[RobustnessScene], evidence: float, step: Step = no_step
) -> tuple[list[RobustnessScene], list[CameraResidual]]:
    """Initialise all vertebrae; in the arm REFINED the cameras are refined first, with the
    threshold `evidence` (see `CameraPrior`)."""
    # Neighbours are those of the same scene.
    numbered = [_numbered(own, i) for i, own in enumerate(scenes)]
    first = _initialised(numbered, step)
    moved, residuals = [], []
    for scene, started in zip(numbered, first, strict=True):
        motions = transforms.SE3.identity((_num_views(scene),))
        status = ""
        if scene.arm == REFINED:
            starts = [task.start for task in started.tasks]
            motions, status = _refined(scene.tasks, starts, evidence)
            step(f"{scene.curve} {scene.value:g}: {status}")
        moved.append(dataclasses.replace(scene, tasks=tasks_with_motions(scene.tasks, motions)))
        residuals.append(_residual(scene, motions, status))
    chosen = [i for i, scene in enumerate(moved) if scene.arm == REFINED]
    if chosen:
        second = _initialised([moved[i] for i in chosen], step)
        for i, scene in zip(chosen, second, strict=True):
            first[i] = scene
    return first, residuals


def only_levels(
    scenes: Sequence[RobustnessScene], levels: Collection[str]
) -> list[RobustnessScene]:
    """Keep the vertebrae of these levels in every scene."""
    return [
        dataclasses.replace(own, tasks=[task for task in own.tasks if task.level in levels])
        for own in scenes
    ]


def fit_robustness_scenes(
    scenes: Sequence[RobustnessScene],
    residuals: Sequence[CameraResidual],
    seed: int,
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Fit every vertebra separately and grade it: one case per vertebra and scene."""
    cases: list[dict[str, Any]] = []
    views_of = [_num_views(own) for own in scenes]
    for num_views in sorted(set(views_of)):
        chosen = [i for i, number in enumerate(views_of) if number == num_views]
        tasks = [task for i in chosen for task in scenes[i].tasks]
        with progress(f"fits in {num_views} views") as step:
            estimates, _ = run_method(registration.ALONE, tasks, num_starts=1, seed=seed, step=step)
        remaining = iter(estimates)
        with progress("grades", len(chosen)) as step:
            for i in chosen:
                own = [(task, next(remaining)) for task in scenes[i].tasks]
                cases += _cases(scenes[i], residuals[i], own)
                step()
    return cases


def _cases(
    scene: RobustnessScene, residual: CameraResidual, estimates: Sequence[tuple[Task, Estimate]]
) -> list[dict[str, Any]]:
    """Make one case per vertebra of a scene."""
    cases = [_case(scene, residual, task, estimate) for task, estimate in estimates]
    if scene.curve in CAMERA_CURVES:
        aligned = _scene_aligned_grades(estimates)
        cases = [case | more for case, more in zip(cases, aligned, strict=True)]
    return cases


def _case(
    scene: RobustnessScene, residual: CameraResidual, task: Task, estimate: Estimate
) -> dict[str, Any]:
    return {
        "subject": task.subject,
        "level": task.level,
        "curve": scene.curve,
        "value": scene.value,
        "arm": scene.arm,
        "repeat": scene.repeat,
        "tier": task.tier,
        "status": status_text(task, estimate),
        "flagged": bool(task.abstention) or estimate.status != 0,
        "angle_deg": task.angle_deg,
        **grade_estimate(task, estimate),
        "camera_angle_left_deg": residual.angle_left_deg,
        "camera_shift_left_mm": residual.shift_left_mm,
        "camera_status": residual.status,
    }


def _scene_aligned_grades(estimates: Sequence[tuple[Task, Estimate]]) -> list[dict[str, Any]]:
    """Grade the estimates after one rigid alignment of the whole scene with the ground truth: the
    error of shape and relative pose, without the error of the scene's position."""
    given = [(task, found) for task, found in estimates if not no_answer_reason(task, found)]
    motion = transforms.SE3.identity()
    if given:
        corners = jnp.concatenate([30.0 * jnp.eye(3), -30.0 * jnp.eye(3)])
        fitted = jnp.concatenate([transforms.apply(f.pose, corners) for _, f in given])
        true = [transforms.apply(t.truth.pose, corners) for t, _ in given if t.truth is not None]
        motion = transforms.align_points(fitted, jnp.concatenate(true))
    rows = []
    for task, found in estimates:
        graded = grade_estimate(task, found._replace(pose=motion @ found.pose))
        rows.append({f"scene_aligned_{key}": graded[key] for key in ("dice", "masd_mm")})
    return rows


def _numbered(own: RobustnessScene, number: int) -> RobustnessScene:
    return dataclasses.replace(
        own, tasks=[dataclasses.replace(task, pair=number) for task in own.tasks]
    )


def _num_views(own: RobustnessScene) -> int:
    return len(own.tasks[0].observations.view_valid)


def _initialised(scenes: Sequence[RobustnessScene], step: Step) -> list[RobustnessScene]:
    """Initialise the scenes, those with the same number of views in one batch."""
    done: dict[int, RobustnessScene] = {}
    for num_views in sorted({_num_views(own) for own in scenes}):
        chosen = [i for i, own in enumerate(scenes) if _num_views(own) == num_views]
        tasks, _ = initialise_tasks([t for i in chosen for t in scenes[i].tasks], step=step)
        rest = iter(tasks)
        for i in chosen:
            found = [next(rest) for _ in scenes[i].tasks]
            done[i] = dataclasses.replace(scenes[i], tasks=found)
    return [done[i] for i in range(len(scenes))]


def _refined(
    tasks: Sequence[Task], starts: Sequence[transforms.SE3], evidence: float
) -> tuple[transforms.SE3, str]:
    """Refine the cameras of a scene from all detections of all its vertebrae."""
    models, seen = stack([t.model for t in tasks]), stack([t.observations for t in tasks])
    coefficients = jnp.zeros(models.modes.shape[:2])
    # The prior is traced, so one compiled program serves all priors.
    prior = jax.tree.map(jnp.asarray, CameraPrior(evidence=evidence))
    found = _refine(models, seen, stack(list(starts)), coefficients, prior)
    return found.motions, CAMERA_STATUS[int(found.status)]


def _residual(own: RobustnessScene, motions: transforms.SE3, status: str) -> CameraResidual:
    motion = jax.tree.map(lambda leaf: leaf[min(1, len(leaf) - 1)], motions)
    left, pivot = motion @ own.wrong_motion, jnp.asarray(own.isocenter, jnp.float32)
    return CameraResidual(
        angle_left_deg=float(jnp.rad2deg(transforms.rotation_angle(left.rotation()))),
        shift_left_mm=float(jnp.linalg.norm(left.apply(pivot) - pivot)),
        status=status,
    )
