"""Grade reconstructions against the ground truth and make the cases of metrics.json."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dartjax import data, pipeline, planning
from dartjax._progress import Progress, no_progress
from dartjax.observations import SIDES, NeedlePath
from dartjax.pipeline import Answers, Estimate, Task
from dartjax.simulation import TrueVertebra

Row = dict[str, Any]
_best_corridor = jax.jit(planning.best_corridor)


def grade_answers(answers: Answers, progress: Progress = no_progress) -> dict[str, list[Row]]:
    """Grade the start, every method and the oracle against the ground truth, by task.

    `succeeded` means that there is an answer and its status is not flagged.
    """
    tasks = answers.tasks
    estimates = {
        "start": [pipeline.start_estimate(task) for task in tasks],
        **answers.estimates,
        "oracle": [pipeline.oracle_estimate(task) for task in tasks],
    }
    grades: dict[str, list[Row]] = {}
    with progress("grading", len(estimates)) as step:
        for name, each in estimates.items():
            # The oracle is graded also where a method abstains.
            graded = [dataclasses.replace(t, abstention="") for t in tasks]
            graded = graded if name == "oracle" else tasks
            grades[name] = [
                pipeline.grade_estimate(t, e) | {"succeeded": not t.abstention and e.status == 0}
                for t, e in zip(graded, each, strict=True)
            ]
            step(name)
    return grades


def case_rows(
    answers: Answers, headline: str, grades: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Row]:
    """Make the cases of metrics.json: grades of the headline method, with those of all others."""
    rows = []
    for i, (task, estimate) in enumerate(
        zip(answers.tasks, answers.estimates[headline], strict=True)
    ):
        own = {name: each[i] for name, each in grades.items()}
        row = case_row(task, estimate, answers.seconds[headline]) | _graded_row(
            task, estimate, headline, own
        )
        if answers.assessments:
            row |= _assessment_row(answers.assessments[i])
        if reason := pipeline.no_answer_reason(task, estimate):
            missing = [k for k, v in row.items() if isinstance(v, float) and np.isnan(v)]
            row |= {f"{key}_reason": reason for key in missing}
        rows.append(row)
    return rows


def case_row(task: Task, estimate: Estimate, seconds: float) -> Row:
    """Make the part of a case that needs no ground truth: vertebra, tier, status, time."""
    row = {
        "subject": task.subject,
        "level": task.level,
        "views": len(task.observations.view_valid),
        "pair": task.pair,
        "angle_deg": task.angle_deg,
        "tier": task.tier,
        "status": pipeline.status_text(task, estimate),
        "mask_agreement": float("nan") if task.abstention else estimate.mask_agreement,
        "seconds": seconds,
    }
    if task.found:
        row["level_named"] = (task.named if task.level_reliable else None) or None
        row["most_likely_level"] = task.named or None
    if task.tier not in (pipeline.DISTURBED, pipeline.GIVEN):
        row["common_landmarks"] = task.common_landmarks
        row["mask_in_every_view"] = task.mask_in_every_view
        row["landmark_residual_mm"] = task.landmark_residual_mm
    return row


def path_points(task: Task, estimate: Estimate) -> dict[str, dict[str, list[float]]]:
    """Return entry and target points of the needle paths of an estimate, world mm."""
    return path_ends(pipeline.carried_paths(task, estimate))


def path_ends(paths: tuple[NeedlePath, NeedlePath]) -> dict[str, dict[str, list[float]]]:
    """Return entry and target points of the left and right path, as in paths.json."""
    return {
        side: {"entry_point": p.entry_point.tolist(), "target_point": p.target_point.tolist()}
        for side, p in zip(SIDES, paths, strict=True)
    }


def save_paths(out: pathlib.Path, paths: Mapping[str, Any]) -> None:
    """Write paths.json: the ends of needle paths by the name of the surface."""
    text = json.dumps({"unit": "mm", "frame": "RAS+ world", "paths": paths}, indent=1)
    (out / "paths.json").write_text(text + "\n", encoding="utf-8")


def _graded_row(
    task: Task, estimate: Estimate, headline: str, own: Mapping[str, Mapping[str, Any]]
) -> Row:
    row = dict(own[headline])
    row["masd_start_mm"] = own["start"]["masd_mm"]
    row["oracle_dice"] = own["oracle"]["dice"]
    row["oracle_masd_mm"] = own["oracle"]["masd_mm"]
    for name in own:
        if name not in (headline, "oracle"):
            row[f"dice_{name}"] = own[name]["dice"]
            row[f"masd_{name}_mm"] = own[name]["masd_mm"]
    assert task.truth is not None
    row |= _paths_row(task, task.truth, estimate)
    row["landmarks_trusted"] = task.truth.landmarks is not None
    return row


def _paths_row(task: Task, truth: TrueVertebra, estimate: Estimate) -> Row:
    """Make the columns of needle paths: their clearance in the true bone, NaN without an answer."""
    row: Row = {}
    answered = not pipeline.no_answer_reason(task, estimate)
    for i, (side, path) in enumerate(
        zip(SIDES, pipeline.carried_paths(task, estimate), strict=True)
    ):
        entry, target = truth.paths[i]
        best = _best_corridor(NeedlePath(entry, target, path.radius), truth.field)[1]
        clearance = planning.clearance(path, truth.field) if answered else None
        row[f"clearance_best_{side}_mm"] = float(best.clearance)
        row[f"clearance_{side}_mm"] = float(clearance.clearance) if clearance else float("nan")
        row[f"path_{side}_feasible"] = bool(clearance.feasible) if clearance else False
        points = [path.entry_point.tolist(), path.target_point.tolist()]
        row[f"path_{side}_world_mm"] = points if answered else None
    return row


def _assessment_row(assessment: Any) -> Row:
    """Make the columns of the quality assessment: failure probability and standard deviations."""
    return {
        "failure_probability": float(assessment.probability),
        "path_std_mm": np.asarray(assessment.path_std_mm, float).tolist(),
        "vertex_std_mm": float(np.mean(assessment.vertex_std_mm)),
    }


def save_meshes(
    folder: pathlib.Path,
    tasks: Sequence[Task],
    estimates: Sequence[Estimate],
) -> None:
    """Write the surface of every answer, and the true surface of every level once, as PLY."""
    saved = set()
    for task, estimate in zip(tasks, estimates, strict=True):
        if task.truth and task.level not in saved:
            saved.add(task.level)
            data.save_ply(folder / f"{task.subject}_{task.level}_truth.ply", task.truth.surface)
        if not pipeline.no_answer_reason(task, estimate):
            data.save_ply(
                folder / f"{surface_name(task)}.ply", pipeline.estimated_surface(task, estimate)
            )


def surface_name(task: Task) -> str:
    """Return the name of the surface and the paths of one answer: SUBJECT_LEVEL_pairN."""
    return f"{task.subject}_{task.level}_pair{task.pair + 1}"
