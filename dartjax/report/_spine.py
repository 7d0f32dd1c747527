"""Write the run folder of a spine without ground truth: spine.json, meshes, report.html."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dartjax.image import Radiograph
from dartjax.observations import SIDES
from dartjax.pipeline import Spine, Vertebra
from dartjax.report._html import Column, Report, write_html
from dartjax.report._reconstruction_cases import Row, path_ends, save_paths
from dartjax.report._reconstruction_figures import Shown, radiograph_png, section
from dartjax.report._terminal import print_cases

_COLUMNS = (
    Column("level", "Level"),
    Column("status", "Status"),
    Column("tier", "Start"),
    Column("failure_probability", "P(failure)", "", 2),
    Column("position_std_mm", "Position SD", "mm", 1),
    Column("clearance_left_mm", "Clearance left", "mm", 1),
    Column("clearance_right_mm", "Clearance right", "mm", 1),
)
_GRADES = ("dice", "nsd_1mm", "hd95_mm", "masd_mm", "masd_start_mm", "oracle_dice")
_SUBJECT = "xrays"  # stands for the subject's name in paths.json


def write_spine(
    out: pathlib.Path, record: Mapping[str, Any], spine: Spine, radiographs: Sequence[Radiograph]
) -> tuple[Row, list[Row]]:
    """Write the run folder of a reconstructed spine and print its table.

    Return the summary and the cases of metrics.json.
    """
    cases = [_row(vertebra, spine) for vertebra in spine]
    summary = {
        "coverage": float(np.mean([vertebra.succeeded for vertebra in spine])),
        "abstained_share": float(np.mean([vertebra.abstained for vertebra in spine])),
        "seconds_per_vertebra": spine.seconds_per_vertebra,
    }
    spine.save(out)
    save_paths(out, {f"{_SUBJECT}_{v.level}_pair1": _ends(v) for v in spine if not v.abstained})
    answered = [vertebra for vertebra in spine if not vertebra.abstained]
    outlines = [(vertebra.start_surface, vertebra.surface) for vertebra in answered]
    pngs = [radiograph_png(i, view, outlines) for i, view in enumerate(radiographs)]
    shown = [Shown(v.level, v.surface, None, _ends(v)) for v in answered]
    page = Report(
        title=f"{_levels(spine)} from {spine.num_views} X-ray{'s' * (spine.num_views > 1)}",
        record=record,
        summary=summary,
        columns=_COLUMNS,
        rows=cases,
        cases=[section(f"{_levels(spine)}, all views", pngs, shown)],
        banner="; ".join(spine.warnings),
    )
    write_html(page, out / "report.html")
    print_cases(cases, _COLUMNS)
    return summary, cases


def _row(vertebra: Vertebra, spine: Spine) -> Row:
    """Make the case of one vertebra; its grades are NaN with a reason."""
    row: Row = {
        "subject": _SUBJECT,
        "level": vertebra.level,
        "views": spine.num_views,
        "tier": vertebra.tier,
        "status": vertebra.status,
        "abstained": vertebra.abstained,
        "mask_agreement": vertebra.mask_agreement,
        "seconds": spine.seconds_per_vertebra,
        "warnings": list(spine.warnings),
    }
    for key in _GRADES:
        row |= {key: float("nan"), f"{key}_reason": "no ground truth for these X-rays"}
    return row | _assessment(vertebra) | _paths(vertebra)


def _assessment(vertebra: Vertebra) -> Row:
    """Make the columns of the quality assessment, with reasons where it is missing."""
    row: Row = {"failure_probability": float("nan"), "position_std_mm": float("nan")}
    if vertebra.p_failure is None:
        row["failure_probability_reason"] = (
            "not assessed: this needs a mask in every view, and a fit"
        )
    else:
        row["failure_probability"] = vertebra.p_failure
    if vertebra.covariance is None:
        row["position_std_mm_reason"] = "not assessed"
    else:
        shift = np.diagonal(np.asarray(vertebra.covariance))[3:6]
        row["position_std_mm"] = float(np.sqrt(np.mean(shift)))
    return row


def _paths(vertebra: Vertebra) -> Row:
    row: Row = {}
    for i, side in enumerate(SIDES):
        planned = vertebra.paths[i] if vertebra.paths else None
        points = planned and [planned.path.entry_point, planned.path.target_point]
        row[f"path_{side}_world_mm"] = points and [np.asarray(p).tolist() for p in points]
        row[f"path_{side}_feasible"] = planned is not None and planned.feasible
        row[f"clearance_{side}_mm"] = float(planned.clearance_mm) if planned else float("nan")
        if planned is None:
            row[f"clearance_{side}_mm_reason"] = vertebra.status
    return row


def _ends(vertebra: Vertebra) -> dict[str, dict[str, list[float]]]:
    assert vertebra.paths is not None, "only an abstention has no paths"
    left, right = vertebra.paths
    return path_ends((left.path, right.path))


def _levels(spine: Spine) -> str:
    levels = [vertebra.level for vertebra in spine]
    return levels[0] if len(levels) == 1 else f"{levels[0]} to {levels[-1]} ({len(levels)})"
