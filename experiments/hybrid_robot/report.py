"""Write the figures, tables.md and report.html of `hybrid_robot`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from dartjax import report
from dartjax.simulation import (
    CALIBRATION_WAYPOINTS_MM,
    COMPENSATION_TH5_DEG,
    COMPENSATION_THX_DEG,
    DRIVE_MODELS,
    DriveErrors,
    ReachMap,
)
from experiments.hybrid_robot import tables

Row = Mapping[str, Any]
Pictures = Mapping[str, tuple[Figure, str]]
_COLOURS = {"nominal": "#b45309", "calibrated": "#0f766e", "true": "#6b7280"}
_LABELS = {"nominal": "before calibration", "calibrated": "calibrated", "true": "noise floor"}
SHOWN_METHODS = ("nominal weight", "rigid tool")


def write_tables(
    path: pathlib.Path,
    record: Row,
    summary: Row,
    legs: Sequence[Row],
    weight: Sequence[Row],
    parameters: Sequence[Row],
) -> None:
    """Write tables.md: the tables of the paper, simulated."""
    parts = {
        "Distance errors over all robots (tables 5 and 6)": tables.error_rows(summary, _LABELS),
        "The 14 legs (table 4)": legs,
        "Identifiability of the parameters (1 = full, 0 = none)": parameters,
        "Weight of the tool (table 7)": weight,
        "All other numbers": [{"number": k, "value": f"{v:.4g}"} for k, v in summary.items()],
    }
    text = "\n".join(
        f"## {title}\n\n{report.markdown_table(record, rows, digits=4)}"
        for title, rows in parts.items()
    )
    path.write_text(text, encoding="utf-8")


def write_page(
    out: pathlib.Path, record: Row, summary: Row, legs: Sequence[Row], pictures: Pictures
) -> None:
    """Write the figures and report.html."""
    names = DRIVE_MODELS
    columns = [
        report.Column("leg", "leg", digits=0),
        report.Column("table_4_mm", "table 4", "mm"),
        report.Column("ideal_mm", "ideal", "mm", 3),
        *[report.Column(f"{n}_mean_mm", f"{_LABELS[n]}, mean", "mm", 3) for n in names],
        *[report.Column(f"{n}_max_mm", f"{_LABELS[n]}, worst robot", "mm", 3) for n in names],
    ]
    page = report.Report(
        title="Hybrid spine robot",
        record=record,
        summary=summary,
        columns=columns,
        rows=legs,
        cases=[report.ReportCase("Pictures", report.save_figures(pictures, out, dpi=110))],
        subtitle="simulated robots: kinematics, self-calibration, weight of the tool",
    )
    report.write_html(page, out / "report.html")


def draw(reach: ReachMap, errors: DriveErrors, residuals: Mapping[str, np.ndarray]) -> Pictures:
    """Draw the three figures, with their captions, by file name."""
    return {
        "workspace": (
            draw_workspace(reach),
            f"Reach in the plane x = {reach.x_mm:.0f} mm, and the conditioning of the three "
            "sliders.",
        ),
        "legs": (draw_legs(errors), "Errors of the 14 legs over all simulated robots."),
        "weight": (
            draw_weight({method: residuals[method][0] for method in SHOWN_METHODS}),
            "Residual of the weight compensation on the grid of table 7, for one robot.",
        ),
    }


def draw_workspace(reach: ReachMap) -> Figure:
    """Draw reach by tilt on the left and conditioning on the right, with the waypoints."""
    figure = Figure(figsize=(11.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    names = [f"tilts to {tilt:.0f} deg" if tilt else "upright" for tilt in reach.tilts_deg]
    shades = ("#d1e7e4", "#6fb5ab", "#0f766e")
    for reached, name, shade in zip(reach.reached, names, shades, strict=True):
        left.contourf(reach.y_mm, reach.z_mm, reached, levels=[0.5, 1.5], colors=[shade])
        left.plot([], [], "s", color=shade, label=name)
    shown = right.contourf(
        reach.y_mm, reach.z_mm, reach.condition, levels=np.arange(1.0, 10.1, 0.5), extend="max"
    )
    figure.colorbar(shown, ax=right, label="condition of the sliders, upright")
    _, y, z = CALIBRATION_WAYPOINTS_MM.T
    for axis, title in ((left, "reach"), (right, "conditioning")):
        axis.plot(y, z, "o-", color="black", markersize=3, linewidth=0.8)
        axis.set(title=title, xlabel="y of the tool point [mm]")
        axis.set_aspect("equal")
    left.plot([], [], "o-", color="black", markersize=3, linewidth=0.8, label="waypoints")
    left.legend(fontsize=8, loc="lower left")
    left.set_ylabel("z of the tool point [mm]")
    figure.suptitle(f"Plane x = {reach.x_mm:.0f} mm of the base frame", fontsize=10)
    return figure


def draw_legs(errors: DriveErrors) -> Figure:
    """Draw the errors of every leg: median, and 5 to 95 % of robots."""
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1.0))
    for offset, name in zip((-0.22, 0.0, 0.22), DRIVE_MODELS, strict=True):
        legs = np.asarray(errors.legs_mm[name])
        low, middle, high = np.percentile(legs, [5.0, 50.0, 95.0], axis=0)
        at = np.arange(1, legs.shape[1] + 1) + offset
        left.vlines(at, low, high, color=_COLOURS[name], linewidth=3.0, alpha=0.5)
        left.plot(at, middle, "o", color=_COLOURS[name], markersize=4, label=_LABELS[name])
        means = np.sort(legs.mean(axis=1))
        share = np.arange(1, len(means) + 1) / len(means)
        style = "--" if name == "true" else "-"
        right.plot(means, share, style, color=_COLOURS[name], linewidth=1.8)
    left.set(yscale="log", ylim=(5e-4, 2.0), xlabel="leg", ylabel="distance error [mm]")
    left.set_title("every leg: median, and 5 to 95 % of robots", fontsize=10)
    left.set_xticks(range(1, 15))
    left.legend(fontsize=8, ncols=3, loc="upper left")
    right.axvline(tables.PUBLISHED_MEAN_MM, color="black", linewidth=0.8, linestyle=":")
    right.text(0.16, 0.75, "0.17 mm, reported\nby the authors", fontsize=7, ha="right")
    right.set(xscale="log", xlabel="mean of the 14 legs [mm]", ylabel="share of robots")
    right.set_title("every robot", fontsize=10)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    return figure


def draw_weight(residuals: Mapping[str, np.ndarray]) -> Figure:
    """Draw residuals (pose, 6) of one robot: a row per compensation, a column per axis."""
    figure = Figure(figsize=(13.0, 2.9 * len(residuals) + 0.4), layout="constrained")
    axes = figure.subplots(
        len(residuals), len(tables.AXES), sharex=True, sharey=True, squeeze=False
    )
    for row, (method, residual) in enumerate(residuals.items()):
        for column, name in enumerate(tables.AXES):
            is_force = column < 3
            unit, factor, most = ("N", 1.0, 1.5) if is_force else ("mN m", 1000.0, 20.0)
            values = factor * residual[:, column]
            shown = _draw_map(axes[row, column], values, most)
            if column in (2, 5):
                figure.colorbar(shown, ax=axes[row, column - 2 : column + 1], label=unit)
            size = np.abs(values)
            axes[row, column].set_title(
                f"{name}: mean {size.mean():.2g}, max {size.max():.2g}", fontsize=8
            )
        axes[row, 0].set_ylabel(f"{method}\ntilt about x [deg]")
    for axis in axes[-1]:
        axis.set_xlabel("th5 [deg]")
    return figure


def _draw_map(axis: Axes, values: np.ndarray, most: float) -> QuadMesh:
    grid = values.reshape(len(COMPENSATION_THX_DEG), len(COMPENSATION_TH5_DEG))
    return axis.pcolormesh(
        COMPENSATION_TH5_DEG, COMPENSATION_THX_DEG, grid, cmap="RdBu_r", vmin=-most, vmax=most
    )
