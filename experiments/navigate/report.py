"""Write the tables, figures and report.html of `navigate`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dartjax import report
from dartjax.simulation import (
    LOOP_TOLERANCE_MM,
    WIRE_CHECK_VIEWS,
    WireCheck,
    WireNavigation,
    WirePlacement,
    closed_loop_statistics,
)

Row = Mapping[str, Any]
PUBLISHED = "6 of 8 grade I, 2 of 8 grade II"
_COLOURS = {"exact": "#0f766e", "dlt": "#6b7280", "cameras": "#7c3aed", "clicked": "#b45309"}
_NAMES = {
    "exact": "two planes, exact marks",
    "dlt": "11-parameter projection, exact marks",
    "cameras": "calibrated cameras (the planner's), exact marks",
    "clicked": "two planes, hand-clicked marks",
}


_LOOP_COLUMNS = {
    "robots": "robots",
    "settled_fraction": "settled",
    "open_mean_mm": "open loop [mm]",
    "mean_mm": "mean [mm]",
    "max_mm": "max [mm]",
    "mean_deg": "mean [deg]",
    "max_deg": "max [deg]",
    "within_tolerance_fraction": "within 0.10 mm and 0.05 deg",
    "measurements_mean": "measurements, mean",
    "measurements_max": "measurements, most",
}
_LOOP_SUMMARY = (
    "open_mean_mm",
    "mean_mm",
    "max_mm",
    "mean_deg",
    "settled_fraction",
    "within_tolerance_fraction",
    "measurements_max",
)


def loop_rows(loop: Mapping[str, WirePlacement]) -> list[dict[str, Any]]:
    """Make rows of open and closed loop by frames per measurement, with the true errors."""
    rows = []
    for name, placements in loop.items():
        found = closed_loop_statistics(placements)
        titled = {title: found[key] for key, title in _LOOP_COLUMNS.items()}
        rows.append({"measurement": name, **titled})
    return rows


def loop_summary(loop: Mapping[str, WirePlacement]) -> dict[str, Any]:
    """Make the closed-loop numbers of metrics.json."""
    summary: dict[str, Any] = {}
    for placements, stem in zip(loop.values(), ("loop", "loop_one_frame"), strict=True):
        found = closed_loop_statistics(placements)
        summary |= {f"{stem}_{key}": found[key] for key in _LOOP_SUMMARY}
    return summary


def write(
    out: pathlib.Path,
    record: Row,
    summary: Row,
    found: WireNavigation,
    loop: Mapping[str, WirePlacement],
) -> None:
    """Write tables.md, the figures and report.html."""
    (out / "tables.md").write_text(_tables(record, summary, found, loop), encoding="utf-8")
    pictures = {
        "accuracy": (
            draw_accuracy(found, loop),
            "Errors of located points, and of the closed loop.",
        ),
    }
    if found.example is not None:
        caption = "Balls of the target, as detected in one pair of images."
        pictures["registration"] = (draw_registration(found), caption)
    if found.checks:
        caption = (
            "AP and lateral views after placement. Orange: entry and target of the plan; "
            "cyan: axis and tip of the wire as measured in the image."
        )
        pictures["checks"] = (draw_checks(found.checks), caption)
    page = report.Report(
        title="Two-plane navigation",
        record=record,
        summary=summary,
        columns=[
            report.Column("subject", "subject"),
            report.Column("level", "level"),
            report.Column("side", "side"),
            report.Column("plan", "plan"),
            report.Column("plan_clearance_mm", "clearance of the plan", "mm"),
            report.Column("entry_error_mm", "entry error", "mm"),
            report.Column("axis_error_deg", "axis error", "°"),
            report.Column("check_tip_mm", "tip error in the check images", "mm"),
            report.Column("breach_cylinder_mm", "breach, 5 mm", "mm"),
            report.Column("grade_cylinder", "grade, 5 mm"),
            report.Column("grade_wire", "grade, wire"),
            report.Column("status", "status"),
        ],
        rows=found.rows,
        cases=[report.ReportCase("Pictures", report.save_figures(pictures, out))],
        subtitle="wires in pedicles from rendered AP and lateral X-rays",
    )
    report.write_html(page, out / "report.html")


def _tables(
    record: Row, summary: Row, found: WireNavigation, loop: Mapping[str, WirePlacement]
) -> str:
    parts = ["# Two-plane navigation\n", "## Points located\n"]
    parts.append(report.markdown_table(record, _point_rows(found)))
    parts += [
        "## Distortion, mm on the plate\n",
        report.markdown_table(record, _distortion(summary)),
    ]
    parts += ["## Closed loop\n", report.markdown_table(record, loop_rows(loop))]
    parts += ["## Grades by level\n", report.markdown_table(record, _grade_rows(found.rows))]
    if any(key.startswith("check_ap") for row in found.rows for key in row):
        parts += ["## Check images\n", report.markdown_table(record, _check_rows(found.rows))]
    parts.append(f"Reported by the authors, cadaver: {PUBLISHED}.\n")
    return "\n".join(parts)


def _point_rows(found: WireNavigation) -> list[dict[str, Any]]:
    rows = []
    for name, title in _NAMES.items():
        e = found.point_errors.get(name, np.array([np.nan]))
        rows.append(
            {
                "way": title,
                "points": len(e),
                "mean [mm]": float(e.mean()),
                "95 % [mm]": float(np.percentile(e, 95)),
                "max [mm]": float(e.max()),
            }
        )
    return rows


def _distortion(summary: Row) -> list[dict[str, Any]]:
    rows = []
    for key, title in (("residual", "local"), ("polynomial", "polynomial of order 5")):
        mean, most = (summary[f"distortion_{key}_{which}_mm"] for which in ("mean", "max"))
        rows.append({"correction": title, "mean [mm]": mean, "max [mm]": most})
    return [*rows, {"correction": "none", "mean [mm]": summary["distortion_uncorrected_mean_mm"]}]


def _grade_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Make rows of grades by level and plan, with a column for pedicles without a feasible plan."""
    table = []
    for level, plan in sorted({(r["level"], r["plan"]) for r in rows}):
        own = [r for r in rows if (r["level"], r["plan"]) == (level, plan)]
        placed = [r for r in own if r["status"] == "placed"]
        no_plan = sum(r["status"].startswith("no feasible") for r in own)
        table.append(
            {
                "level": level,
                "plan": plan,
                "placed": len(placed),
                "not placed": len(own) - len(placed) - no_plan,
                "pedicles without a feasible plan": no_plan,
                **{f"5 mm: {g}": sum(r["grade_cylinder"] == g for r in placed) for g in _GRADES},
                **{f"wire: {g}": sum(r["grade_wire"] == g for r in placed) for g in _GRADES},
                "entry error [mm]": _mean(placed, "entry_error_mm"),
                "axis error [deg]": _mean(placed, "axis_error_deg"),
            }
        )
    return table


def _check_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Make rows of the deviations of wires as measured in the check images, and their errors."""
    table = []
    for key, title in _CHECKED.items():
        stem, unit = key.rsplit("_", 1)
        own = np.array([r[key] for r in rows if key in r])
        error = np.array([r[f"{stem}_off_{unit}"] for r in rows if f"{stem}_off_{unit}" in r])
        table.append(
            {
                "measured": f"{title} [{unit}]",
                "wires": len(own),
                "mean": float(own.mean()),
                "95 %": float(np.percentile(own, 95)),
                "max": float(own.max()),
                "error, mean": float(error.mean()),
                "error, 95 %": float(np.percentile(error, 95)),
            }
        )
    return table


_CHECKED = {
    "check_ap_offset_mm": "offset at the entry, AP",
    "check_lateral_offset_mm": "offset at the entry, lateral",
    "check_ap_angle_deg": "angle, AP",
    "check_lateral_angle_deg": "angle, lateral",
    "check_tip_mm": "tip from the target, both views",
}
_GRADES = ("I", "II", "III", "IV")


def _mean(rows: Sequence[Row], key: str) -> float:
    return float(np.mean([r[key] for r in rows])) if rows else float("nan")


def draw_accuracy(found: WireNavigation, loop: Mapping[str, WirePlacement]) -> Figure:
    """Draw the distributions of point errors and of true errors of the closed loop."""
    figure = Figure((10.0, 4.0), layout="constrained")
    points, rounds = figure.subplots(1, 2)
    for name, title in _NAMES.items():
        e = np.sort(found.point_errors.get(name, np.array([np.nan])))
        points.plot(e, np.linspace(0.0, 1.0, len(e)), color=_COLOURS[name], label=title)
    points.axvline(0.12, color="#9ca3af", lw=0.8, ls="--")
    points.set(xscale="log", xlabel="error of a point [mm]", ylabel="share of points")
    points.set_ylim(0.0, 1.45)
    points.set_yticks(np.linspace(0.0, 1.0, 6))
    points.legend(frameon=False, fontsize=8, loc="upper left")
    for (name, placed), colour in zip(loop.items(), ("#0f766e", "#b45309"), strict=True):
        before = np.asarray(placed.open_error[:, 0])
        after = np.asarray(placed.loop_error[:, 0])
        bins = np.geomspace(0.005, 3.0, 40)
        rounds.hist(after, bins, histtype="step", color=colour, label=f"closed loop, {name}")
        if name == "60 frames":
            rounds.hist(before, bins, histtype="step", color="#6b7280", label="open loop")
    rounds.axvline(LOOP_TOLERANCE_MM, color="#9ca3af", lw=0.8, ls="--")
    rounds.set(xscale="log", xlabel="true error of the tool [mm]", ylabel="robots")
    rounds.legend(frameon=False, fontsize=8, loc="upper left")
    for axes in (points, rounds):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_registration(found: WireNavigation) -> Figure:
    """Draw both images of a pair with the detected balls of the near and far layer."""
    assert found.example is not None
    figure = Figure((11.0, 4.3), layout="constrained")
    _spaced(figure)
    for axes, image, match, recorded, name in zip(
        figure.subplots(1, 2),
        found.example.pair.images,
        found.example.pair.matches,
        found.example.pixels,
        ("AP", "lateral"),
        strict=True,
    ):
        axes.imshow(
            image, cmap="gray", vmin=0, vmax=255, extent=(0, image.shape[1], image.shape[0], 0)
        )
        for layer, colour in enumerate(("#22d3ee", "#f59e0b")):
            seen = np.asarray(match.seen[layer])
            at = recorded[layer][seen]
            label = f"{('near', 'far')[layer]} layer: {seen.sum()} of {len(seen)}"
            axes.plot(*at.T, "o", ms=6, mfc="none", mec=colour, mew=0.8, label=label)
        axes.set_title(name, fontsize=10)
        axes.legend(fontsize=8, loc="lower center", ncols=2)
        axes.set_axis_off()
    return figure


def draw_checks(checks: Sequence[WireCheck]) -> Figure:
    """Draw the check images, cropped around the path."""
    rows = -(-len(checks) // 2)
    figure = Figure((10.4, 2.8 * rows), layout="constrained")
    _spaced(figure)
    grid = figure.subplots(rows, 4, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for i, check in enumerate(checks):
        for part, name in enumerate(WIRE_CHECK_VIEWS):
            _draw_check(grid[i // 2, 2 * (i % 2) + part], check, part)
            grid[i // 2, 2 * (i % 2) + part].set_title(f"{check.title}, {name}", fontsize=8)
    return figure


def _draw_check(axes: Axes, check: WireCheck, part: int) -> None:
    image, ends = check.images[part], check.planned[part]
    u, v = ends.mean(axis=0)
    extent = (0, image.shape[1], image.shape[0], 0)
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=extent)
    axes.plot(*check.axis[part].T, ".", ms=2, color="#22d3ee")
    axes.plot(*check.tips[part].T, "x", ms=6, mew=1.2, color="#22d3ee")
    axes.plot(*ends.T, "o", ms=8, mfc="none", mec="#f59e0b", mew=1.2)
    axes.set(xlim=(u - 140, u + 140), ylim=(v + 140, v - 140))


def _spaced(figure: Figure) -> None:
    """Add space for titles above the images."""
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(h_pad=0.12, w_pad=0.04)  # pyright: ignore[reportCallIssue]
