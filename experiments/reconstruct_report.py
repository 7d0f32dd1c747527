"""What `reconstruct` leaves in its run folder: metrics.json, report.html, meshes, a table."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool
from rich.console import Console
from rich.table import Table

from dartjax import data, metrics, planning, report, ssm
from dartjax.camera import Camera
from dartjax.image import Radiograph
from dartjax.mesh import TriangleMesh
from dartjax.observations import SIDES, NeedlePath
from dartjax.registration import RUNGS
from dartjax.render import SplatOptions, splat
from experiments import launch, methods, reconstruct_tables, results
from experiments.methods import Estimate, Task
from experiments.scene import TrueVertebra

NEEDLE_RADIUS_MM = 2.5  # the 5 mm cannula of Spine-DART
Radiographs = Mapping[tuple[str, int], Sequence[Radiograph]]
Results = Mapping[str, Sequence[Estimate]]
Grades = Mapping[str, Sequence[Mapping[str, Any]]]

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
    report.Column("rung", "Start"),
    report.Column("status", "Status"),
    report.Column("seconds", "Time", "s", 1),
)


def write_graded(
    ctx: launch.RunContext,
    record: Mapping[str, Any],
    tasks: Sequence[Task],
    estimates: Results,
    headline: str,
    seconds: Mapping[str, float],
    radiographs: Radiographs,
) -> None:
    """Grade every method on every task and write the run folder. The `headline` is the method
    whose answers are the cases; the others are rows of a table."""
    answers = {
        "start": [methods.start_estimate(task) for task in tasks],
        **estimates,
        "oracle": [methods.oracle_estimate(task) for task in tasks],
    }
    grades = _grade_all(tasks, answers)
    ours = estimates[headline]
    cases = [
        _case_row(
            task, ours[i], headline, {name: g[i] for name, g in grades.items()}, seconds[headline]
        )
        for i, task in enumerate(tasks)
    ]
    fine = reconstruct_tables.succeeded(tasks, ours)
    summary = _summary(cases, fine, grades, headline, seconds[headline])
    summary |= _start_summary(tasks)
    ctx.save_metrics(record, summary, cases)
    tables = _tables(tasks, answers, grades, headline, fine)
    _write_tables(ctx, record, tables)
    _save_meshes(ctx, tasks, ours)
    with launch.progress("report") as step:
        page = report.Report(
            title="Vertebrae from two X-rays",
            subtitle=f"{record['dataset']}: {len(tasks)} reconstructions",
            record=record,
            summary=summary,
            columns=COLUMNS,
            rows=cases,
            cases=_report_cases(tasks, ours, radiographs),
        )
        report.write_html(page, ctx.out / "report.html")
        step("report.html")
    _print_cases(record, cases)
    for title, rows in tables.items():
        _console().print(reconstruct_tables.as_table(rows, title))
    _console().print(f"Metrics: {'; '.join(metrics.DEFINITIONS.values())}", style="dim")


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


def _grade_all(tasks: Sequence[Task], answers: Results) -> Grades:
    grades: dict[str, list[dict[str, Any]]] = {}
    with launch.progress("grading", len(answers)) as step:
        for name, estimates in answers.items():
            # What the model could reach is graded also where no answer is given.
            graded = [dataclasses.replace(t, refused="") for t in tasks]
            judged = graded if name == "oracle" else tasks
            grades[name] = [methods.grade(t, e) for t, e in zip(judged, estimates, strict=True)]
            step(name)
    return grades


def _tables(
    tasks: Sequence[Task],
    answers: Results,
    grades: Grades,
    headline: str,
    fine: Bool[np.ndarray, " case"],
) -> dict[str, list[dict[str, Any]]]:
    groups = (grades[headline], grades["oracle"], fine)
    return {
        "The same start, landmarks and prior for every method": reconstruct_tables.by_method(
            tasks, answers, grades, headline
        ),
        f"{headline} by the start it had": reconstruct_tables.by_rung(tasks, *groups),
        f"{headline} by level": reconstruct_tables.by_level(tasks, *groups),
    }


def _write_tables(
    ctx: launch.RunContext,
    record: Mapping[str, Any],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
) -> None:
    """tables.md; none where the shape models have seen a subject."""
    if record["ssm_leak"]:
        return
    text = "\n".join(
        f"## {title}\n\n{results.markdown_table(record, rows)}" for title, rows in tables.items()
    )
    (ctx.out / "tables.md").write_text(text, encoding="utf-8")


def _identity(task: Task, estimate: Estimate, seconds: float) -> dict[str, Any]:
    return {
        "subject": task.subject,
        "level": task.level,
        "views": len(task.observations.view_valid),
        "pair": task.pair,
        "angle_deg": task.angle_deg,
        "rung": task.rung,
        "status": methods.status_text(task, estimate),
        "mask_agreement": float("nan") if task.refused else estimate.mask_agreement,
        "seconds": seconds,
    }


def _case_row(
    task: Task,
    estimate: Estimate,
    headline: str,
    graded: Mapping[str, Mapping[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    row = _identity(task, estimate, seconds) | dict(graded[headline])
    row["masd_start_mm"] = graded["start"]["masd_mm"]
    row["oracle_dice"] = graded["oracle"]["dice"]
    row["oracle_masd_mm"] = graded["oracle"]["masd_mm"]
    for name in graded:
        if name not in (headline, "oracle"):
            row[f"dice_{name}"] = graded[name]["dice"]
            row[f"masd_{name}_mm"] = graded[name]["masd_mm"]
    assert task.truth is not None
    if task.rung != "disturbed":
        row["common_landmarks"] = task.common_landmarks
        row["landmark_residual_mm"] = task.landmark_residual_mm
    row |= _paths_row(task, task.truth, estimate)
    row["landmarks_trusted"] = task.truth.landmarks is not None
    if reason := methods.refusal(task, estimate):
        missing = [k for k, v in row.items() if isinstance(v, float) and np.isnan(v)]
        row |= {f"{key}_reason": reason for key in missing}
    return row


def _paths_row(task: Task, truth: TrueVertebra, estimate: Estimate) -> dict[str, Any]:
    """The planned paths and the room around them in the true bone; no path without an answer."""
    row: dict[str, Any] = {}
    answered = not methods.refusal(task, estimate)
    for i, (side, path) in enumerate(zip(SIDES, planned_paths(task, estimate), strict=True)):
        entry, target = truth.paths[i]
        best = _best_corridor(NeedlePath(entry, target, path.radius), truth.field)[1]
        room = planning.clearance(path, truth.field) if answered else None
        row[f"clearance_best_{side}_mm"] = float(best.clearance)
        row[f"clearance_{side}_mm"] = float(room.clearance) if room else float("nan")
        row[f"path_{side}_feasible"] = bool(room.feasible) if room else False
        points = [path.entry_point.tolist(), path.target_point.tolist()]
        row[f"path_{side}_world_mm"] = points if answered else None
    return row


def _summary(
    cases: Sequence[Mapping[str, Any]],
    fine: Bool[np.ndarray, " case"],
    grades: Grades,
    headline: str,
    seconds: float,
) -> dict[str, Any]:
    """Means with and without failures; a failure is a case without an answer or a flagged one."""
    dice = np.nan_to_num([case["dice"] for case in cases])
    lowest = [case["dice"] for case in cases if np.isfinite(case["dice"])]
    worse = np.array([c["masd_mm"] - c["masd_start_mm"] > 1.0 for c in cases])
    start, after = (methods.mean_of(grades[name], "masd_mm") for name in ("start", headline))
    clearances, best = (
        np.array([[c[f"clearance{kind}_{side}_mm"] for side in SIDES] for c in cases])
        for kind in ("", "_best")
    )
    others = {f"dice_mean_{n}": g for n, g in grades.items() if n != headline}
    return {
        "coverage": float(np.mean(fine)),
        "dice_mean": float(np.mean(dice[fine])) if fine.any() else float("nan"),
        "dice_mean_failures_zero": float(np.mean(np.where(fine, dice, 0.0))),
        "dice_min": float(np.min(lowest, initial=np.inf)),
        "oracle_dice_mean": methods.mean_of(grades["oracle"], "dice"),
        "nsd_1mm_mean": methods.mean_of(grades[headline], "nsd_1mm"),
        "hd95_mean_mm": methods.mean_of(grades[headline], "hd95_mm"),
        "masd_start_mean_mm": start,
        "masd_mean_mm": after,
        "masd_ratio": after / start,
        "worse_unflagged": int(np.sum(worse & fine)),
        **reconstruct_tables.failure_auroc(cases),
        "paths_feasible_share": float(np.mean(clearances >= 0.0)),
        "corridors_feasible_share": float(np.mean(best >= 0.0)),
        **{key: methods.mean_of(graded, "dice") for key, graded in others.items()},
        "seconds_per_vertebra": seconds,
    }


def _start_summary(tasks: Sequence[Task]) -> dict[str, Any]:
    """Where the starts stand, and for how many those of the papers could be made."""
    if tasks[0].rung == "disturbed":
        return {}
    rungs = [task.rung for task in tasks]
    share = {f"share_rung_{i}": rungs.count(rung) / len(rungs) for i, rung in sorted(RUNGS.items())}
    rules = reconstruct_tables.PAPER_RULES.values()
    common, backup = (float(np.mean([allows(task) for task in tasks])) for allows in rules)
    return share | {
        "coverage_3_common_landmarks": common,
        "coverage_3_common_or_all_masks": backup,
        "abstained_share": float(np.mean([bool(task.refused) for task in tasks])),
    }


def _save_meshes(ctx: launch.RunContext, tasks: Sequence[Task], estimates: Sequence[Estimate]):
    folder = ctx.out / "meshes"
    folder.mkdir()
    paths: dict[str, Any] = {}
    for task, estimate in zip(tasks, estimates, strict=True):
        if task.truth and task.pair == 0:
            data.save_ply(folder / f"{task.subject}_{task.level}_truth.ply", task.truth.surface)
        if methods.refusal(task, estimate):
            continue
        name = f"{task.subject}_{task.level}_pair{task.pair + 1}"
        data.save_ply(folder / f"{name}.ply", methods.surface(task, estimate))
        left, right = planned_paths(task, estimate)
        paths[name] = {
            side: {"entry_point": p.entry_point.tolist(), "target_point": p.target_point.tolist()}
            for side, p in (("left", left), ("right", right))
        }
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
            if (t.subject, t.pair) == (subject, pair) and not methods.refusal(t, e)
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


def _console() -> Console:
    # Wide enough for the table also where the output is no terminal.
    return Console(width=max(Console().width, 130))


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.{digits}f}" if np.isfinite(value) else "n/a"
