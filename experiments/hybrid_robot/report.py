"""Tables, pictures and the report of `hybrid_robot`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.axes
import numpy as np
from matplotlib.figure import Figure

from dartjax import report
from dartjax.robot import StatusCode, arms
from dartjax.robot.arms import STRUCTURE_NAMES
from experiments.hybrid_robot.legs import DRIVES, PUBLISHED_MEAN_MM, WAYPOINTS_MM, Study
from experiments.hybrid_robot.tool_weight import AXES, NOMINAL, RIGID, ToolWeightFields

Row = Mapping[str, Any]
_COLOURS = {"nominal": "#b45309", "calibrated": "#0f766e", "true": "#6b7280"}
_LABELS = {"nominal": "before calibration", "calibrated": "calibrated", "true": "noise floor"}
_TILTS_DEG = (0.0, 15.0, 30.0)
_X_MM = 625.0


class ReachMap(NamedTuple):
    """What the robot reaches in the plane x = 625 mm."""

    y_mm: np.ndarray
    z_mm: np.ndarray
    reached: np.ndarray  # (tilt, z, y): at all combinations of +-tilt about x and y
    condition: np.ndarray  # (z, y): of the three sliders, upright; NaN out of reach


def reach_map() -> ReachMap:
    """Reach and conditioning over a grid of y and z."""
    model = arms.spine_hybrid()
    y, z = np.arange(150.0, 851.0, 10.0), np.arange(-400.0, 201.0, 10.0)
    grid = np.stack(np.meshgrid(y, z), -1).reshape(-1, 2)

    def poses(tilt_x: float, tilt_y: float) -> jax.Array:
        columns = np.c_[np.full(len(grid), _X_MM), grid]
        return jnp.asarray(np.c_[columns, np.full(len(grid), tilt_x), np.full(len(grid), tilt_y)])

    inverse = jax.jit(jax.vmap(lambda pose: arms.hybrid_inverse(pose, model)))
    reached = []
    for tilt in np.deg2rad(_TILTS_DEG):
        corners = [(a, b) for a in (-tilt, tilt) for b in (-tilt, tilt)]
        codes = [np.asarray(inverse(poses(*corner))[1]) for corner in corners]
        reached.append(np.all(np.stack(codes) == StatusCode.OK, axis=0))
    condition = jax.jit(jax.vmap(lambda q: arms.conditioning(q, model).slider_condition))
    upright = np.asarray(condition(inverse(poses(0.0, 0.0))[0]))
    shape = (len(z), len(y))
    upright = np.where(reached[0], upright, np.nan).reshape(shape)
    return ReachMap(y, z, np.stack(reached).reshape(-1, *shape), upright)


def write(
    out: pathlib.Path,
    record: Row,
    summary: Row,
    legs: Sequence[Row],
    weight: Sequence[Row],
    seen: Mapping[str, Any],
    study: Study,
    reach: ReachMap,
    fields: ToolWeightFields,
) -> None:
    """tables.md, the pictures and report.html in the run folder."""
    parameters = parameter_rows(seen)
    write_tables(out / "tables.md", record, legs, weight, parameters, summary)
    pictures = {
        "workspace": (
            draw_workspace(reach),
            "Reach in the plane x = 625 mm, and the conditioning of the three sliders.",
        ),
        "legs": (draw_legs(study), "Errors of the 14 legs over all simulated robots."),
        "weight": (
            draw_weight(fields),
            "What is left of the tool's weight on the grid of table 7, one robot.",
        ),
    }
    columns = [
        report.Column("leg", "leg", digits=0),
        report.Column("table_4_mm", "table 4", "mm"),
        report.Column("ideal_mm", "ideal", "mm", 3),
        *[report.Column(f"{n}_mean_mm", f"{_LABELS[n]}, mean", "mm", 3) for n in DRIVES],
        *[report.Column(f"{n}_max_mm", f"{_LABELS[n]}, worst robot", "mm", 3) for n in DRIVES],
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


def parameter_rows(seen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How far the legs and the planned poses determine each structure parameter."""
    legs, points = np.asarray(seen["legs"].seen), np.asarray(seen["points"].seen)
    return [
        {"parameter": name, "seen by the 14 legs": legs[i], "seen by planned poses": points[i]}
        for i, name in enumerate(STRUCTURE_NAMES)
    ]


def write_tables(
    path: pathlib.Path,
    record: Row,
    legs: Sequence[Row],
    weight: Sequence[Row],
    parameters: Sequence[Row],
    summary: Row,
) -> None:
    """The tables of the paper, simulated."""
    errors = [
        {
            "driven with": _LABELS[name],
            "mean mm": summary[f"{prefix}_distance_error_mean_mm"],
            "largest leg, 95 % of robots mm": summary[f"{prefix}_distance_error_max_mm"],
            "largest leg, worst robot mm": summary[f"{prefix}_distance_error_worst_mm"],
            "position, mean mm": summary[f"{prefix}_position_error_mean_mm"],
            "tilt, mean deg": summary[f"{prefix}_tilt_error_mean_deg"],
            "mean reported by the authors mm": PUBLISHED_MEAN_MM if name == "nominal" else None,
        }
        for name, prefix in zip(DRIVES, ("uncalibrated", "calibrated", "floor"), strict=True)
    ]
    parts = {
        "Distance errors over all robots (tables 5 and 6)": errors,
        "The 14 legs (table 4)": legs,
        "What measurements determine (1 = wholly, 0 = not at all)": parameters,
        "Weight of the tool (table 7)": weight,
        "Everything else": [{"number": k, "value": f"{v:.4g}"} for k, v in summary.items()],
    }
    text = "\n".join(
        f"## {title}\n\n{report.markdown_table(record, rows, digits=4)}"
        for title, rows in parts.items()
    )
    path.write_text(text, encoding="utf-8")


def draw_workspace(reach: ReachMap) -> Figure:
    """Reach by tilt on the left, conditioning on the right, with the waypoints."""
    figure = Figure(figsize=(11.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    names = [f"tilts to {tilt:.0f} deg" if tilt else "upright" for tilt in _TILTS_DEG]
    shades = ("#d1e7e4", "#6fb5ab", "#0f766e")
    for reached, name, shade in zip(reach.reached, names, shades, strict=True):
        left.contourf(reach.y_mm, reach.z_mm, reached, levels=[0.5, 1.5], colors=[shade])
        left.plot([], [], "s", color=shade, label=name)
    shown = right.contourf(
        reach.y_mm, reach.z_mm, reach.condition, levels=np.arange(1.0, 10.1, 0.5), extend="max"
    )
    figure.colorbar(shown, ax=right, label="condition of the sliders, upright")
    for axis, title in ((left, "reach"), (right, "conditioning")):
        axis.plot(
            WAYPOINTS_MM[:, 1], WAYPOINTS_MM[:, 2], "o-", color="black", markersize=3, linewidth=0.8
        )
        axis.set(title=title, xlabel="y of the tool point [mm]")
        axis.set_aspect("equal")
    left.plot([], [], "o-", color="black", markersize=3, linewidth=0.8, label="waypoints")
    left.legend(fontsize=8, loc="lower left")
    left.set_ylabel("z of the tool point [mm]")
    figure.suptitle(f"Plane x = {_X_MM:.0f} mm of the base frame", fontsize=10)
    return figure


def draw_legs(study: Study) -> Figure:
    """Errors of every leg: median and the range of 5 to 95 % of robots."""
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1.0))
    for offset, name in zip((-0.22, 0.0, 0.22), DRIVES, strict=True):
        legs = np.asarray(study.legs_mm[name])
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
    right.axvline(PUBLISHED_MEAN_MM, color="black", linewidth=0.8, linestyle=":")
    right.text(0.16, 0.75, "0.17 mm, reported\nby the authors", fontsize=7, ha="right")
    right.set(xscale="log", xlabel="mean of the 14 legs [mm]", ylabel="share of robots")
    right.set_title("every robot", fontsize=10)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    return figure


def draw_weight(fields: ToolWeightFields) -> Figure:
    """Residual maps: one row per compensation, one column per axis."""
    methods = [name for name in (NOMINAL, RIGID) if name in fields.residual]
    figure = Figure(figsize=(13.0, 2.9 * len(methods) + 0.4), layout="constrained")
    axes = figure.subplots(len(methods), len(AXES), sharex=True, sharey=True, squeeze=False)
    for row, method in enumerate(methods):
        for column, name in enumerate(AXES):
            is_force = column < 3
            unit, factor, most = ("N", 1.0, 1.5) if is_force else ("mN m", 1000.0, 20.0)
            values = factor * fields.residual[method][:, :, column]
            shown = _map(axes[row, column], fields, values, most)
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


def _map(axis: matplotlib.axes.Axes, fields: ToolWeightFields, values: np.ndarray, most: float):
    return axis.pcolormesh(
        fields.th5_deg, fields.thx_deg, values, cmap="RdBu_r", vmin=-most, vmax=most
    )
