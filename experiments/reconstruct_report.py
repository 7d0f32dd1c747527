"""What `reconstruct` leaves in its run folder: metrics.json, report.html, meshes, a table."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from dartjax import data, metrics, planning, report, ssm
from dartjax.camera import Camera
from dartjax.image import Radiograph
from dartjax.mesh import TriangleMesh
from dartjax.observations import SIDES, NeedlePath
from dartjax.registration import STATUS_MEANING
from dartjax.render import SplatOptions, splat
from experiments import launch, methods
from experiments.methods import OURS, Estimate, Task

NEEDLE_RADIUS_MM = 2.5  # the 5 mm cannula of Spine-DART
Radiographs = Mapping[tuple[str, int], Sequence[Radiograph]]
Results = Mapping[str, Sequence[Estimate]]

COLUMNS = (
    report.Column("level", "Level"),
    report.Column("dice", "Dice", "", 3),
    report.Column("nsd_1mm", "NSD 1 mm", "", 3),
    report.Column("hd95_mm", "HD95", "mm", 2),
    report.Column("masd_start_mm", "MASD before", "mm", 2),
    report.Column("masd_mm", "MASD after", "mm", 2),
    report.Column("oracle_dice", "Oracle Dice", "", 3),
    report.Column("clearance_left_mm", "Clearance left", "mm", 1),
    report.Column("clearance_right_mm", "Clearance right", "mm", 1),
    report.Column("status", "Status"),
    report.Column("seconds", "Time", "s", 1),
)


def write_graded(
    ctx: launch.RunContext,
    record: Mapping[str, Any],
    tasks: Sequence[Task],
    results: Results,
    seconds: Mapping[str, float],
    radiographs: Radiographs,
) -> None:
    """Grade every method on every task and write the run folder."""
    grades = _grade_all(tasks, results)
    cases = [
        _case_row(task, results[OURS][i], {name: g[i] for name, g in grades.items()}, seconds[OURS])
        for i, task in enumerate(tasks)
    ]
    summary = _summary(cases, grades, seconds)
    ctx.save_metrics(record, summary, cases)
    _save_meshes(ctx, tasks, results[OURS])
    with launch.progress("report") as step:
        page = report.Report(
            title="Vertebrae from two X-rays",
            subtitle=f"{record['dataset']}: {len(tasks)} reconstructions",
            record=record,
            summary=summary,
            columns=COLUMNS,
            rows=cases,
            cases=_report_cases(tasks, results[OURS], radiographs),
        )
        report.write_html(page, ctx.out / "report.html")
        step("report.html")
    _print_cases(record, cases)
    _print_methods(grades)


def write_ungraded(
    ctx: launch.RunContext,
    record: Mapping[str, Any],
    task: Task,
    estimate: Estimate,
    seconds: float,
    radiographs: Sequence[Radiograph],
    warnings: Sequence[str],
) -> None:
    """The run folder of a vertebra whose truth is unknown."""
    reason = "no ground truth for these X-rays"
    row: dict[str, Any] = _identity(task, estimate, seconds)
    for key in ("dice", "nsd_1mm", "hd95_mm", "masd_mm", "masd_start_mm", "oracle_dice"):
        row |= {key: float("nan"), f"{key}_reason": reason}
    for side, path in zip(SIDES, planned_paths(task, estimate), strict=True):
        row[f"path_{side}_world_mm"] = [path.entry_point.tolist(), path.target_point.tolist()]
    row["warnings"] = list(warnings)
    covered = float(estimate.status != 1)
    summary = {"coverage": covered, "seconds_per_vertebra": seconds}
    ctx.save_metrics(record, summary, [row])
    _save_meshes(ctx, [task], [estimate])
    page = report.Report(
        title=f"{task.level} from {len(radiographs)} X-rays",
        record=record,
        summary=summary,
        columns=[c for c in COLUMNS if c.key in ("level", "status", "seconds")],
        rows=[row],
        cases=_report_cases([task], [estimate], {(task.subject, 0): radiographs}),
        banner="; ".join(warnings),
    )
    report.write_html(page, ctx.out / "report.html")
    Console().print(f"{task.level}: {row['status']}")


def planned_paths(task: Task, estimate: Estimate) -> tuple[NeedlePath, NeedlePath]:
    """Left and right transpedicular path, carried by the reconstructed surface."""
    points = ssm.paths(task.model, methods.surface(task, estimate).vertices)
    left, right = (NeedlePath(p[0], p[1], jnp.asarray(NEEDLE_RADIUS_MM)) for p in points)
    return left, right


def _grade_all(tasks: Sequence[Task], results: Results) -> dict[str, list[dict[str, float]]]:
    estimates = {
        "start": [methods.start_estimate(task) for task in tasks],
        **results,
        "oracle": [methods.oracle_estimate(task) for task in tasks],
    }
    grades: dict[str, list[dict[str, float]]] = {}
    with launch.progress("grading", len(estimates)) as step:
        for name, answers in estimates.items():
            grades[name] = [methods.grade(t, e) for t, e in zip(tasks, answers, strict=True)]
            step(name)
    return grades


def _identity(task: Task, estimate: Estimate, seconds: float) -> dict[str, Any]:
    return {
        "subject": task.subject,
        "level": task.level,
        "views": len(task.observations.view_valid),
        "pair": task.pair,
        "angle_deg": task.angle_deg,
        "rung": "disturbed" if task.truth else "given",
        "status": STATUS_MEANING[estimate.status],
        "mask_agreement": estimate.mask_agreement,
        "seconds": seconds,
    }


def _case_row(
    task: Task, estimate: Estimate, graded: Mapping[str, dict[str, float]], seconds: float
) -> dict[str, Any]:
    row = _identity(task, estimate, seconds) | graded[OURS]
    row["masd_start_mm"] = graded["start"]["masd_mm"]
    row["oracle_dice"] = graded["oracle"]["dice"]
    row["oracle_masd_mm"] = graded["oracle"]["masd_mm"]
    for name in graded:
        if name not in (OURS, "oracle"):
            row[f"dice_{name}"] = graded[name]["dice"]
            row[f"masd_{name}_mm"] = graded[name]["masd_mm"]
    assert task.truth is not None
    for i, (side, path) in enumerate(zip(SIDES, planned_paths(task, estimate), strict=True)):
        room = planning.clearance(path, task.truth.field)
        entry, target = task.truth.paths[i]
        known = NeedlePath(entry, target, path.radius)
        best = _best_corridor(known, task.truth.field)[1]
        row[f"clearance_best_{side}_mm"] = float(best.clearance)
        row[f"clearance_{side}_mm"] = float(room.clearance)
        row[f"path_{side}_feasible"] = bool(room.feasible)
        row[f"path_{side}_world_mm"] = [path.entry_point.tolist(), path.target_point.tolist()]
    row["landmarks_trusted"] = task.truth.landmarks is not None
    return row


def _summary(
    cases: Sequence[Mapping[str, Any]],
    grades: Mapping[str, list[dict[str, float]]],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Means with and without failures; a failure is a flagged case."""
    succeeded = [case["status"] == STATUS_MEANING[0] for case in cases]
    dice = np.nan_to_num([case["dice"] for case in cases])
    worse = [c["masd_mm"] - c["masd_start_mm"] > 1.0 for c in cases]
    start, after = (methods.mean_of(grades[name], "masd_mm") for name in ("start", OURS))
    clearances, best = (
        np.array([[c[f"clearance{kind}_{side}_mm"] for side in SIDES] for c in cases])
        for kind in ("", "_best")
    )
    return {
        "coverage": float(np.mean(succeeded)),
        "dice_mean": float(np.mean(dice[succeeded])) if any(succeeded) else float("nan"),
        "dice_mean_failures_zero": float(np.mean(np.where(succeeded, dice, 0.0))),
        "dice_min": float(np.min(dice)),
        "oracle_dice_mean": methods.mean_of(grades["oracle"], "dice"),
        "nsd_1mm_mean": methods.mean_of(grades[OURS], "nsd_1mm"),
        "hd95_mean_mm": methods.mean_of(grades[OURS], "hd95_mm"),
        "masd_start_mean_mm": start,
        "masd_mean_mm": after,
        "masd_ratio": after / start,
        "worse_unflagged": sum(w and s for w, s in zip(worse, succeeded, strict=True)),
        "paths_feasible_share": float(np.mean(clearances >= 0.0)),
        "corridors_feasible_share": float(np.mean(best >= 0.0)),
        **{f"dice_mean_{n}": methods.mean_of(g, "dice") for n, g in grades.items() if n != OURS},
        "seconds_per_vertebra": seconds[OURS],
    }


def _save_meshes(ctx: launch.RunContext, tasks: Sequence[Task], estimates: Sequence[Estimate]):
    folder = ctx.out / "meshes"
    folder.mkdir()
    paths: dict[str, Any] = {}
    for task, estimate in zip(tasks, estimates, strict=True):
        name = f"{task.subject}_{task.level}_pair{task.pair + 1}"
        data.save_ply(folder / f"{name}.ply", methods.surface(task, estimate))
        left, right = planned_paths(task, estimate)
        paths[name] = {
            side: {"entry_point": p.entry_point.tolist(), "target_point": p.target_point.tolist()}
            for side, p in (("left", left), ("right", right))
        }
        if task.truth and task.pair == 0:
            data.save_ply(folder / f"{task.subject}_{task.level}_truth.ply", task.truth.surface)
    text = json.dumps({"unit": "mm", "frame": "RAS+ world", "paths": paths}, indent=1)
    (ctx.out / "paths.json").write_text(text + "\n", encoding="utf-8")


def _report_cases(
    tasks: Sequence[Task], estimates: Sequence[Estimate], radiographs: Radiographs
) -> list[report.ReportCase]:
    """One section per subject and pair of views."""
    sections = []
    for (subject, pair), views in radiographs.items():
        chosen = [
            (t, e)
            for t, e in zip(tasks, estimates, strict=True)
            if (t.subject, t.pair) == (subject, pair)
        ]
        sections.append(
            report.ReportCase(
                title=f"{subject}, views {pair + 1}",
                figures=[_figure(i, view, chosen) for i, view in enumerate(views)],
                meshes=[mesh for task, estimate in chosen for mesh in _meshes(task, estimate)],
                paths=[path for task, estimate in chosen for path in _paths(task, estimate)],
            )
        )
    return sections


def _figure(index: int, view: Radiograph, chosen: Sequence[tuple[Task, Estimate]]) -> report.Figure:
    contours = []
    for task, estimate in chosen:
        before = methods.surface(task, methods.start_estimate(task))
        after = methods.surface(task, estimate)
        contours.append(_contour(before, view.camera, report.BEFORE, "start"))
        contours.append(_contour(after, view.camera, report.AFTER, "reconstruction"))
    png = report.radiograph_figure(view.image, contours, title=f"X-ray {index + 1}")
    return report.Figure(png, f"X-ray {index + 1}: outlines before and after the fit")


_best_corridor = jax.jit(planning.best_corridor)
_silhouette = jax.jit(
    lambda mesh, view: splat(mesh.vertices, mesh.faces, view, SplatOptions(window=25)).silhouette
)


def _contour(mesh: TriangleMesh, view: Camera, colour: str, label: str) -> report.Contour:
    outline = report.silhouette_contours(np.asarray(_silhouette(mesh, view)))
    return report.Contour(outline, colour, label)


def _meshes(task: Task, estimate: Estimate) -> list[report.ViewerMesh]:
    surface = methods.surface(task, estimate)
    shown = [
        report.ViewerMesh(
            task.level, "reconstruction", surface.vertices, surface.faces, report.AFTER
        )
    ]
    if task.truth:
        truth = report.decimate(
            np.asarray(task.truth.surface.vertices), np.asarray(task.truth.surface.faces), 8000
        )
        shown.append(
            report.ViewerMesh(task.level, "ground truth", *truth, report.TRUTH, opacity=0.35)
        )
    return shown


def _paths(task: Task, estimate: Estimate) -> list[report.ViewerPath]:
    return [
        report.ViewerPath(
            task.level, np.asarray(p.entry_point), np.asarray(p.target_point), NEEDLE_RADIUS_MM
        )
        for p in planned_paths(task, estimate)
        if np.isfinite(np.asarray(p.entry_point)).all()
    ]


def _print_cases(record: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> None:
    kind = {"synthetic": "SYNTHETIC ANATOMY, not VerSe"}.get(record["dataset_kind"], "")
    table = Table(title=f"{record['dataset']} {kind}")
    for column in COLUMNS:
        heading = f"{column.heading} [{column.unit}]" if column.unit else column.heading
        table.add_column(heading, justify="left" if column.key in ("level", "status") else "right")
    for case in cases:
        table.add_row(*[_cell(case[column.key], column.digits) for column in COLUMNS])
    _console().print(table)


def _print_methods(grades: Mapping[str, list[dict[str, float]]]) -> None:
    table = Table(title="The same start, landmarks and prior for every row")
    for heading in ("Method", "Dice", "Dice min", "NSD 1 mm", "HD95 [mm]", "MASD [mm]"):
        table.add_column(heading, justify="left" if heading == "Method" else "right")
    for name, rows in grades.items():
        means = [methods.mean_of(rows, k) for k in ("dice", "nsd_1mm", "hd95_mm", "masd_mm")]
        lowest = float(np.min([row["dice"] for row in rows]))
        cells = [means[0], lowest, *means[1:]]
        table.add_row(name, *[_cell(v, 3 if i < 3 else 2) for i, v in enumerate(cells)])
    _console().print(table)
    _console().print(f"Metrics: {'; '.join(metrics.DEFINITIONS.values())}", style="dim")


def _console() -> Console:
    # Wide enough for the table also where the output is no terminal.
    return Console(width=max(Console().width, 130))


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.{digits}f}" if np.isfinite(value) else "n/a"
