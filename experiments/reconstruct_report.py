"""What `reconstruct` leaves in its run folder: metrics.json, report.html, meshes, a table."""

import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from dartjax import metrics, report
from dartjax.image import Radiograph
from dartjax.observations import SIDES
from dartjax.registration import RUNGS
from experiments import (
    grading,
    launch,
    reconstruct_cases,
    reconstruct_figures,
    reconstruct_tables,
    reconstruct_units,
    results,
)
from experiments.grading import Estimate, Task
from experiments.reconstruct_cases import Row
from experiments.reconstruct_units import Unit

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
_SUBJECT = report.Column("subject", "Subject")
_MAX_PRINTED = 60  # rows on the terminal
_MAX_ON_PAGE = 2000  # rows of report.html


def write_graded(
    ctx: launch.RunContext, record: Mapping[str, Any], units: Sequence[Unit], headline: str
) -> None:
    """The run folder of graded answers, from finished units. The `headline` is the method whose
    answers are the cases; the others are rows of a table."""
    used = [unit for unit in units if not unit.reason]
    cases = [case for unit in used for case in unit.cases]
    grades = {name: [row for unit in used for row in unit.grades[name]] for name in used[0].grades}
    summary = _summary(cases, grades, headline) | _start_summary(cases)
    summary["subjects_failed"] = len(units) - len(used)
    ctx.save_metrics(record, summary, cases)
    tables = _tables(cases, grades, headline) | _failed_table(units)
    _write_tables(ctx, record, tables)
    _copy_meshes(ctx, used)
    with launch.progress("report") as step:
        page = report.Report(
            title="Vertebrae from two X-rays",
            subtitle=f"{record['dataset']}: {len(cases)} reconstructions",
            record=record,
            summary=summary,
            columns=_columns(used),
            rows=cases[:_MAX_ON_PAGE],
            cases=[
                section
                for unit in used
                for section in reconstruct_figures.sections(unit.folder, unit.cases, unit.paths)
            ],
            banner=_banner(units, len(cases)),
        )
        report.write_html(page, ctx.out / "report.html")
        step("report.html")
    _print_cases(record, cases, _columns(used))
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
    row = reconstruct_cases.case_row(task, estimate, seconds)
    for key in ("dice", "nsd_1mm", "hd95_mm", "masd_mm", "masd_start_mm", "oracle_dice"):
        row |= {key: float("nan"), f"{key}_reason": reason}
    answered = not grading.refusal(task, estimate)
    points = reconstruct_cases.path_points(task, estimate)
    for side in SIDES:
        row[f"path_{side}_world_mm"] = list(points[side].values()) if answered else None
    row["warnings"] = list(warnings)
    covered = float(estimate.status != grading.NOT_FINITE)
    summary = {"coverage": covered, "seconds_per_vertebra": seconds}
    ctx.save_metrics(record, summary, [row])
    _mesh_folder(ctx)
    reconstruct_units.save_meshes(ctx.out / "meshes", [task], [estimate])
    _save_paths(ctx, {reconstruct_units.name_of(task): points} if answered else {})
    chosen = [(task, estimate)] if answered else []
    pngs = [reconstruct_figures.radiograph_png(i, v, chosen) for i, v in enumerate(radiographs)]
    shown = [
        reconstruct_figures.Shown(task.level, grading.surface(task, estimate), None, points)
        for _ in chosen
    ]
    page = report.Report(
        title=f"{task.level} from {len(radiographs)} X-rays",
        record=record,
        summary=summary,
        columns=[c for c in COLUMNS if c.key in ("level", "status", "seconds")],
        rows=[row],
        cases=[reconstruct_figures.section(f"{task.subject}, views 1", pngs, shown)],
        banner="; ".join(warnings),
    )
    report.write_html(page, ctx.out / "report.html")
    Console().print(f"{task.level}: {row['status']}")


def _tables(cases: Sequence[Row], grades: Grades, headline: str) -> dict[str, list[Row]]:
    given = (cases, grades, headline)
    return {
        "The same start, landmarks and prior for every method": reconstruct_tables.by_method(
            *given
        ),
        f"{headline} by the start it had": reconstruct_tables.by_rung(*given),
        f"{headline} by level": reconstruct_tables.by_level(*given),
    }


def _failed_table(units: Sequence[Unit]) -> dict[str, list[Row]]:
    rows = [{"subject": unit.subject, "reason": unit.reason} for unit in units if unit.reason]
    return {"Subjects that could not be used": rows} if rows else {}


def _banner(units: Sequence[Unit], num_cases: int) -> str:
    """What a reader of the page must know is not on it."""
    failed = sum(bool(unit.reason) for unit in units)
    notes = []
    if failed:
        notes.append(f"{failed} of {len(units)} subjects could not be used (reasons: tables.md)")
    if num_cases > _MAX_ON_PAGE:
        notes.append(f"the first {_MAX_ON_PAGE} of {num_cases} cases (all: metrics.json)")
    return "; ".join(notes)


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


def _summary(cases: Sequence[Row], grades: Grades, headline: str) -> dict[str, Any]:
    """Means with and without failures; a failure is a case without an answer or a flagged one."""
    fine = np.array([case["succeeded"] for case in cases], bool)
    dice = np.nan_to_num([case["dice"] for case in cases])
    lowest = [case["dice"] for case in cases if np.isfinite(case["dice"])]
    worse = np.array([c["masd_mm"] - c["masd_start_mm"] > 1.0 for c in cases])
    start, after = (grading.mean_of(grades[name], "masd_mm") for name in ("start", headline))
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
        "oracle_dice_mean": grading.mean_of(grades["oracle"], "dice"),
        "nsd_1mm_mean": grading.mean_of(grades[headline], "nsd_1mm"),
        "hd95_mean_mm": grading.mean_of(grades[headline], "hd95_mm"),
        "masd_start_mean_mm": start,
        "masd_mean_mm": after,
        "masd_ratio": after / start,
        "worse_unflagged": int(np.sum(worse & fine)),
        **reconstruct_tables.failure_auroc(cases),
        "paths_feasible_share": float(np.mean(clearances >= 0.0)),
        "corridors_feasible_share": float(np.mean(best >= 0.0)),
        **{key: grading.mean_of(graded, "dice") for key, graded in others.items()},
        "seconds_per_vertebra": grading.mean_of(cases, "seconds"),
    }


def _start_summary(cases: Sequence[Row]) -> dict[str, Any]:
    """Where the starts stand, and for how many those of the papers could be made."""
    if cases[0]["rung"] == "disturbed":
        return {}
    rungs = [case["rung"] for case in cases]
    share = {f"share_rung_{i}": rungs.count(rung) / len(rungs) for i, rung in sorted(RUNGS.items())}
    rules = reconstruct_tables.PAPER_RULES.values()
    common, backup = (float(np.mean([allows(case) for case in cases])) for allows in rules)
    abstained = [case["status"].startswith(grading.ABSTAINED) for case in cases]
    return share | {
        "coverage_3_common_landmarks": common,
        "coverage_3_common_or_all_masks": backup,
        "abstained_share": float(np.mean(abstained)),
    }


def _copy_meshes(ctx: launch.RunContext, units: Sequence[Unit]) -> None:
    folder = _mesh_folder(ctx)
    for unit in units:
        for file in sorted(unit.folder.glob("*.ply")):
            shutil.copyfile(file, folder / file.name)
    _save_paths(ctx, {name: path for unit in units for name, path in unit.paths.items()})


def _mesh_folder(ctx: launch.RunContext) -> pathlib.Path:
    folder = ctx.out / "meshes"
    folder.mkdir()
    return folder


def _save_paths(ctx: launch.RunContext, paths: Mapping[str, Any]) -> None:
    text = json.dumps({"unit": "mm", "frame": "RAS+ world", "paths": paths}, indent=1)
    (ctx.out / "paths.json").write_text(text + "\n", encoding="utf-8")


def _columns(units: Sequence[Unit]) -> tuple[report.Column, ...]:
    return (_SUBJECT, *COLUMNS) if len(units) > 1 else COLUMNS


def _print_cases(
    record: Mapping[str, Any], cases: Sequence[Row], columns: Sequence[report.Column]
) -> None:
    kind = {"synthetic": "SYNTHETIC ANATOMY, not VerSe"}.get(record["dataset_kind"], "")
    table = Table(title=f"{record['dataset']} {kind}")
    for column in columns:
        heading = f"{column.heading} [{column.unit}]" if column.unit else column.heading
        is_text = isinstance(cases[0][column.key], str)
        table.add_column(heading, justify="left" if is_text else "right")
    for case in cases[:_MAX_PRINTED]:
        table.add_row(*[_cell(case[column.key], column.digits) for column in columns])
    _console().print(table)
    if len(cases) > _MAX_PRINTED:
        _console().print(f"... and {len(cases) - _MAX_PRINTED} more in metrics.json", style="dim")


def _console() -> Console:
    # Wide enough for the table also where the output is no terminal.
    return Console(width=max(Console().width, 130))


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.{digits}f}" if np.isfinite(value) else "n/a"
