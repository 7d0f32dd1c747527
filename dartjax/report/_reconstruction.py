"""Write the run folder of graded reconstructions: tables, report.html, meshes, paths."""

import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dartjax import data, metrics, pipeline
from dartjax._progress import Progress, no_progress
from dartjax.observations import SIDES
from dartjax.registration import TIERS
from dartjax.report._html import Column, Report, write_html
from dartjax.report._reconstruction_cases import Row, save_paths
from dartjax.report._reconstruction_figures import sections
from dartjax.report._reconstruction_tables import (
    PAPER_RULES,
    as_table,
    by_level,
    by_method,
    by_tier,
    failure_auroc,
)
from dartjax.report._results import markdown_table
from dartjax.report._subject_results import SubjectResult
from dartjax.report._terminal import console, print_cases

Grades = Mapping[str, Sequence[Mapping[str, Any]]]

COLUMNS = (
    Column("level", "Level"),
    Column("dice", "Dice", "", 3),
    Column("nsd_1mm", "NSD 1 mm", "", 3),
    Column("hd95_mm", "HD95", "mm", 2),
    Column("masd_start_mm", "MASD before", "mm", 2),
    Column("masd_mm", "MASD after", "mm", 2),
    Column("oracle_dice", "Oracle Dice", "", 3),
    Column("clearance_left_mm", "Clearance left", "mm", 1),
    Column("clearance_right_mm", "Clearance right", "mm", 1),
    Column("tier", "Start"),
    Column("status", "Status"),
    Column("seconds", "Time", "s", 1),
)
_SUBJECT = Column("subject", "Subject")
_MAX_PRINTED = 60  # rows on the terminal
_MAX_ON_PAGE = 2000  # rows of report.html


def write_graded(
    out: pathlib.Path,
    record: Mapping[str, Any],
    units: Sequence[SubjectResult],
    headline: str,
    *,
    progress: Progress = no_progress,
) -> tuple[Row, list[Row]]:
    """Write tables.md, meshes, paths.json and report.html of graded reconstructions.

    `units` are the results per subject. The answers of the `headline` method are the cases; the
    other methods are rows of a table. Return the summary and the cases of metrics.json.
    """
    used = [unit for unit in units if not unit.reason]
    cases = [case for unit in used for case in unit.cases]
    grades = {name: [row for unit in used for row in unit.grades[name]] for name in used[0].grades}
    summary = _summary(cases, grades, headline) | _start_summary(cases)
    summary["subjects_failed"] = len(units) - len(used)
    tables = _tables(cases, grades, headline) | _failed_table(units) | _doubts_table(used)
    _write_tables(out, record, tables)
    _copy_meshes(out, used)
    _save_spines(out, used)
    with progress("report") as step:
        page = Report(
            title="Vertebrae from two X-rays",
            subtitle=f"{record['dataset']}: {len(cases)} reconstructions",
            record=record,
            summary=summary,
            columns=_columns(used),
            rows=cases[:_MAX_ON_PAGE],
            cases=[pair for unit in used for pair in sections(unit.folder, unit.cases, unit.paths)],
            banner=_banner(units, len(cases)),
        )
        write_html(page, out / "report.html")
        step("report.html")
    kind = {"synthetic": "SYNTHETIC ANATOMY, not VerSe"}.get(record["dataset_kind"], "")
    print_cases(cases, _columns(used), f"{record['dataset']} {kind}")
    for title, rows in tables.items():
        console().print(as_table(rows, title))
    console().print(f"Metrics: {'; '.join(metrics.DEFINITIONS.values())}", style="dim")
    return summary, cases


def _tables(cases: Sequence[Row], grades: Grades, headline: str) -> dict[str, list[Row]]:
    given = (cases, grades, headline)
    return {
        "All methods, with the same start, landmarks and prior": by_method(*given),
        f"{headline} by initialisation tier": by_tier(*given),
        f"{headline} by level": by_level(*given),
    }


def _failed_table(units: Sequence[SubjectResult]) -> dict[str, list[Row]]:
    rows = [{"subject": unit.subject, "reason": unit.reason} for unit in units if unit.reason]
    return {"Subjects that could not be used": rows} if rows else {}


def _doubts_table(used: Sequence[SubjectResult]) -> dict[str, list[Row]]:
    rows = [{"subject": unit.subject, "doubt": doubt} for unit in used for doubt in unit.doubts]
    return {"Doubtful scans": rows} if rows else {}


def _banner(units: Sequence[SubjectResult], num_cases: int) -> str:
    """State what is missing on the page (failed subjects, cases beyond the limit), and doubts."""
    failed = sum(bool(unit.reason) for unit in units)
    doubtful = sum(bool(unit.doubts) for unit in units)
    notes = []
    if failed:
        notes.append(f"{failed} of {len(units)} subjects could not be used (reasons: tables.md)")
    if doubtful:
        notes.append(f"{doubtful} of {len(units)} scans are doubtful (warnings: tables.md)")
    if num_cases > _MAX_ON_PAGE:
        notes.append(f"the first {_MAX_ON_PAGE} of {num_cases} cases (all: metrics.json)")
    return "; ".join(notes)


def _write_tables(
    out: pathlib.Path,
    record: Mapping[str, Any],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
) -> None:
    """Write tables.md, unless the shape models have seen a subject."""
    if record["ssm_leak"]:
        return
    text = "\n".join(
        f"## {title}\n\n{markdown_table(record, rows)}" for title, rows in tables.items()
    )
    (out / "tables.md").write_text(text, encoding="utf-8")


def _summary(cases: Sequence[Row], grades: Grades, headline: str) -> dict[str, Any]:
    """Compute means with and without failures (cases without an answer, and flagged answers)."""
    succeeded = np.array([case["succeeded"] for case in cases], bool)
    dice = np.nan_to_num([case["dice"] for case in cases])
    lowest = [case["dice"] for case in cases if np.isfinite(case["dice"])]
    worse = np.array([c["masd_mm"] - c["masd_start_mm"] > 1.0 for c in cases])
    start, after = (pipeline.finite_mean(grades[name], "masd_mm") for name in ("start", headline))
    clearances, best = (
        np.array([[c[f"clearance{kind}_{side}_mm"] for side in SIDES] for c in cases])
        for kind in ("", "_best")
    )
    other_methods = {f"dice_mean_{n}": g for n, g in grades.items() if n != headline}
    return {
        "coverage": float(np.mean(succeeded)),
        "dice_mean": float(np.mean(dice[succeeded])) if succeeded.any() else float("nan"),
        "dice_mean_failures_zero": float(np.mean(np.where(succeeded, dice, 0.0))),
        "dice_min": float(np.min(lowest, initial=np.inf)),
        "oracle_dice_mean": pipeline.finite_mean(grades["oracle"], "dice"),
        "nsd_1mm_mean": pipeline.finite_mean(grades[headline], "nsd_1mm"),
        "hd95_mean_mm": pipeline.finite_mean(grades[headline], "hd95_mm"),
        "masd_start_mean_mm": start,
        "masd_mean_mm": after,
        "masd_ratio": after / start,
        "worse_unflagged": int(np.sum(worse & succeeded)),
        **failure_auroc(cases),
        "paths_feasible_share": float(np.mean(clearances >= 0.0)),
        "corridors_feasible_share": float(np.mean(best >= 0.0)),
        **{key: pipeline.finite_mean(graded, "dice") for key, graded in other_methods.items()},
        "seconds_per_vertebra": pipeline.finite_mean(cases, "seconds"),
    }


def _start_summary(cases: Sequence[Row]) -> dict[str, Any]:
    """Compute the shares of initialisation tiers, of cases allowed by the papers' rules, and of
    abstentions."""
    if cases[0]["tier"] == "disturbed":
        return {}
    tiers = [case["tier"] for case in cases]
    share = {f"share_tier_{i}": tiers.count(tier) / len(tiers) for i, tier in sorted(TIERS.items())}
    rules = PAPER_RULES.values()
    common, backup = (float(np.mean([allows(case) for case in cases])) for allows in rules)
    abstained = [case["status"].startswith(pipeline.ABSTENTION_PREFIX) for case in cases]
    return share | {
        "coverage_3_common_landmarks": common,
        "coverage_3_common_or_all_masks": backup,
        "abstained_share": float(np.mean(abstained)),
    }


def _copy_meshes(out: pathlib.Path, units: Sequence[SubjectResult]) -> None:
    folder = _mesh_folder(out)
    for unit in units:
        for file in sorted(unit.folder.glob("*.ply")):
            shutil.copyfile(file, folder / file.name)
    save_paths(out, {name: path for unit in units for name, path in unit.paths.items()})


def _save_spines(out: pathlib.Path, units: Sequence[SubjectResult]) -> None:
    """Write spine.json for one set of views, or spines/SUBJECT_pairN.json for several."""
    spines = {
        f"{unit.subject}_pair{pair}": spine
        for unit in units
        for pair, spine in enumerate(unit.spines, 1)
    }
    if len(spines) == 1:
        (spine,) = spines.values()
        data.publish_json(out / "spine.json", _with_meshes_in("meshes", spine))
        return
    for name, spine in spines.items():
        data.publish_json(out / "spines" / f"{name}.json", _with_meshes_in("../meshes", spine))


def _with_meshes_in(folder: str, spine: Mapping[str, Any]) -> dict[str, Any]:
    vertebrae = [
        each | {"mesh": each["mesh"] and f"{folder}/{each['mesh']}"} for each in spine["vertebrae"]
    ]
    return {**spine, "vertebrae": vertebrae}


def _mesh_folder(out: pathlib.Path) -> pathlib.Path:
    folder = out / "meshes"
    folder.mkdir()
    return folder


def _columns(units: Sequence[SubjectResult]) -> tuple[Column, ...]:
    return (_SUBJECT, *COLUMNS) if len(units) > 1 else COLUMNS
