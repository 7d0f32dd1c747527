"""Starts, fits and grades of the robustness curves; cameras are refined first where asked for."""

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
    """What refinement made of the second view: how far it still is from where it stood."""

    angle_left_deg: float
    shift_left_mm: float
    status: str


def start_robustness_scenes(
    scenes: Sequence[RobustnessScene], evidence: float, step: Step = no_step
) -> tuple[list[RobustnessScene], list[CameraResidual]]:
    """Find starts for all vertebrae, cameras refined first where the arm says so (and the
    evidence for it exceeds what `CameraPrior` calls by that name)."""
    # Neighbours are those of the same scene.
    numbered = [_numbered(own, i) for i, own in enumerate(scenes)]
    first = _initialised(numbered, step)
    moved, residuals = [], []
    for own, begun in zip(numbered, first, strict=True):
        motions = transforms.SE3.identity((_num_views(own),))
        status = ""
        if own.arm == REFINED:
            motions, status = _refined(own.tasks, [task.start for task in begun.tasks], evidence)
            step(f"{own.curve} {own.value:g}: {status}")
        moved.append(dataclasses.replace(own, tasks=tasks_with_motions(own.tasks, motions)))
        residuals.append(_residual(own, motions, status))
    chosen = [i for i, own in enumerate(moved) if own.arm == REFINED]
    if chosen:
        second = _initialised([moved[i] for i in chosen], step)
        for i, own in zip(chosen, second, strict=True):
            first[i] = own
    return first, residuals


def only_levels(
    scenes: Sequence[RobustnessScene], levels: Collection[str]
) -> list[RobustnessScene]:
    """The scenes with the vertebrae of these levels."""
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
    """Fit every vertebra by itself and grade it: one case per vertebra and scene."""
    cases: list[dict[str, Any]] = []
    views_of = [_num_views(own) for own in scenes]
    for num_views in sorted(set(views_of)):
        chosen = [i for i, number in enumerate(views_of) if number == num_views]
        tasks = [task for i in chosen for task in scenes[i].tasks]
        with progress(f"fits in {num_views} views") as step:
            estimates, _ = run_method(registration.ALONE, tasks, num_starts=1, seed=seed, step=step)
        answers = iter(estimates)
        with progress("grades", len(chosen)) as step:
            for i in chosen:
                own = [(task, next(answers)) for task in scenes[i].tasks]
                cases += _cases(scenes[i], residuals[i], own)
                step()
    return cases


def _cases(
    scene: RobustnessScene, residual: CameraResidual, answers: Sequence[tuple[Task, Estimate]]
) -> list[dict[str, Any]]:
    """One case per vertebra of a scene."""
    cases = [_case(scene, residual, task, estimate) for task, estimate in answers]
    if scene.curve in CAMERA_CURVES:
        aligned = _scene_aligned_grades(answers)
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
        "rung": task.tier,
        "status": status_text(task, estimate),
        "flagged": bool(task.abstention) or estimate.status != 0,
        "angle_deg": task.angle_deg,
        **grade_estimate(task, estimate),
        "camera_angle_left_deg": residual.angle_left_deg,
        "camera_shift_left_mm": residual.shift_left_mm,
        "camera_status": residual.status,
    }


def _scene_aligned_grades(answers: Sequence[tuple[Task, Estimate]]) -> list[dict[str, Any]]:
    """Grades after one rigid motion of the whole scene onto the truth: what is left when it does
    not matter where the scene is, which the first view alone cannot tell."""
    given = [(task, found) for task, found in answers if not no_answer_reason(task, found)]
    motion = transforms.SE3.identity()
    if given:
        corners = jnp.concatenate([30.0 * jnp.eye(3), -30.0 * jnp.eye(3)])
        fitted = jnp.concatenate([transforms.apply(f.pose, corners) for _, f in given])
        true = [transforms.apply(t.truth.pose, corners) for t, _ in given if t.truth is not None]
        motion = transforms.align_points(fitted, jnp.concatenate(true))
    rows = []
    for task, found in answers:
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
    """Scenes of the same number of views are initialised together."""
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
    """Motions of the cameras, from all that was detected of all vertebrae of a scene."""
    models, seen = stack([t.model for t in tasks]), stack([t.observations for t in tasks])
    coefficients = jnp.zeros(models.modes.shape[:2])
    # Traced, so that one program serves every prior.
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
