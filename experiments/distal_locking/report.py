"""Write the tables and figures of the distal locking study."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dartjax import report
from dartjax.simulation import (
    NAIL_POSE_ESTIMATORS,
    DistalLockingResults,
    ball_detector_rows,
    operation_statistics,
    operations_of,
)

Rows = list[dict[str, Any]]
_COLOURS = dict(zip(NAIL_POSE_ESTIMATORS, ("#0f766e", "#c2410c", "#6d28d9"), strict=True))
_VIEW_NAMES = {"fronto_parallel": "fronto-parallel", "generic": "generic"}
_BALL_TITLES = {
    "detector": "detector",
    "images": "images",
    "recall": "balls found",
    "precision": "of the found are balls",
    "rms_px": "rms per axis [px]",
}
_AXES = {
    "x_mm": "x [mm]",
    "y_mm": "y [mm]",
    "z_mm": "z [mm]",
    "rx_deg": "rx [deg]",
    "ry_deg": "ry [deg]",
    "rz_deg": "rz [deg]",
}
_POSE_TITLES = {
    "estimator": "estimator",
    "n": "n",
    "time_ms": "time [ms]",
    "residual_2d_mm": "2D [mm]",
    "residual_2d_sd_mm": "2D sd",
    "residual_3d_mm": "3D [mm]",
    "residual_3d_sd_mm": "3D sd",
    "same_minimum_fraction": "same minimum as NL-EV",
    **{key: f"error {title}" for key, title in _AXES.items()},
}
_CENTER_TITLES = {"sigma_px": "sigma [px]", "n": "n", **_AXES}
_EDGE_TITLES = {
    "sigma_px": "sigma [px]",
    "estimator": "estimator",
    "n": "n",
    "no_answer": "no answer",
    "axis_deg": "axis [deg]",
    "in_plane_mm": "in plane [mm]",
    "depth_mm": "depth [mm]",
}
_CALIBRATION_TITLES = {
    "plate_balls": "plate balls",
    "upper_balls": "upper balls",
    "rms_px": "rms [px]",
    "focal_length_error_px": "f - true [px]",
    "focal_length_sigma_px": "sigma f [px]",
    "cx_sigma_px": "sigma cx [px]",
    "cy_sigma_px": "sigma cy [px]",
    "distortion_left_mean_mm": "distortion left, mean [mm]",
    "distortion_left_max_mm": "distortion left, max [mm]",
}
# [Y] table II and figures 5, 6, 13.
_AUTHORS = {
    "DLT": (409.35, 229.06),
    "DB": (0.26, 0.16),
    "EV": (1.34, 0.87),
    "NL-DLT": (0.09, 0.06),
    "NL-DB": (0.09, 0.06),
    "NL-EV": (0.09, 0.06),
}
_AUTHORS_SYSTEM = {"fronto_parallel": (1.3, 3.0), "generic": (2.7, 3.4)}


def short_text(values: Mapping[str, Any]) -> str:
    """Format the main results for the terminal."""
    return (
        f"guide and nail in {values['detected_of_78']} of 78 images, "
        f"{values['false_positives']} false positives in {values['num_negatives']}\n"
        f"fronto-parallel {values['fp_angle_deg']:.2f} deg, {values['fp_error_mm']:.2f} mm; "
        f"generic {values['generic_angle_deg']:.2f} deg, {values['generic_error_mm']:.2f} mm"
    )


def write_tables(
    path: pathlib.Path, record: Mapping[str, Any], found: DistalLockingResults
) -> None:
    """Write tables.md."""
    balls = ball_detector_rows(found.images)
    parts = [
        ("Detection", _detection_rows(found)),
        ("Balls, compared with OpenCV on the same images", _titled(balls, _BALL_TITLES)),
        *[(f"Pose of the drill guide: {k}", _pose_rows(t)) for k, t in found.pose_tables.items()],
        (
            "NL-DLT against noise of the centres (mean deviation)",
            _titled(found.center_curve, _CENTER_TITLES),
        ),
        ("Pose of the nail against noise of its edges", _titled(found.edge_curve, _EDGE_TITLES)),
        ("Whole system", _system_rows(found.operations)),
        ("Calibration of the C-arm", _titled(found.calibrations, _CALIBRATION_TITLES)),
        ("Spread of reference poses with two rods", _spread_rows(found.reference_poses)),
    ]
    text = "\n".join(
        f"## {title}\n\n{report.markdown_table(record, rows)}" for title, rows in parts if rows
    )
    path.write_text(text, encoding="utf-8")


def _titled(rows: Rows, titles: Mapping[str, str]) -> Rows:
    """Rename the keys of rows to the titles of their columns."""
    return [{title: row[key] for key, title in titles.items()} for row in rows]


def _detection_rows(found: DistalLockingResults) -> Rows:
    total = len(found.images)
    both = sum(row["guide"] and row["nail"] for row in found.images)
    rows = [
        {"": "guide and nail", "found": both, "of": total, "reported by the authors": "61 of 78"},
        {"": "guide", "found": sum(r["guide"] for r in found.images), "of": total},
        {"": "nail", "found": sum(r["nail"] for r in found.images), "of": total},
    ]
    for kind in sorted({row["kind"] for row in found.negatives}):
        own = [row for row in found.negatives if row["kind"] == kind]
        false = sum(row["false_guide"] or row["false_nail"] for row in own)
        rows.append({"": f"false positives, {kind}", "found": false, "of": len(own)})
        rows[-1]["reported by the authors"] = "0"
    for row in rows:
        row.setdefault("reported by the authors", "")
    return rows


def _pose_rows(table: Rows) -> Rows:
    """Make the rows of the pose estimators, with the numbers reported by the authors."""
    timed = [row | {"time_ms": 1e3 * row["seconds"]} for row in table]
    rows = []
    for row in _titled(timed, _POSE_TITLES):
        published = _AUTHORS.get(row["estimator"])
        note = "{:g} / {:g}".format(*published) if published else ""
        rows.append({**row, "2D / 3D reported by the authors": note})
    return rows


def _system_rows(operations: Rows) -> Rows:
    rows = []
    kinds = dict.fromkeys((r["mounting"], r["view"], r["estimator"]) for r in operations)
    for mounting, view, estimator in kinds:
        found = operation_statistics(operations_of(operations, mounting, view, estimator))
        authors = "{:g} deg, {:g} mm".format(*_AUTHORS_SYSTEM[view])
        rows.append(
            {
                "mounting": mounting,
                "view": _VIEW_NAMES[view],
                "nail by": estimator,
                "drilled": f"{found['drilled']} of {found['operations']}",
                "angle [deg]": found["angle_mean_deg"],
                "angle 95 % [deg]": found["angle_p95_deg"],
                "error [mm]": found["error_mean_mm"],
                "error 95 % [mm]": found["error_p95_mm"],
                "rod passes": found["rod_passes_fraction"],
                "images": found["images_mean"],
                "reported by the authors": authors if mounting == "bone" else "",
            }
        )
    return rows


def _spread_rows(spread: Rows) -> Rows:
    def span(key: str) -> str:
        own = [row[key] for row in spread]
        return f"{min(own):.1f} to {max(own):.1f}"

    return [
        {
            "pairs of poses": len(spread),
            "angle [deg]": span("angle_deg"),
            "distance 10 mm above and below the nail [mm]": (
                f"{span('entry_mm')} and {span('exit_mm')}"
            ),
            "reported by the authors": "0 to 0.9 deg, 0 to 3.9 mm",
        }
    ]


def write_pictures(
    out: pathlib.Path,
    record: Mapping[str, Any],
    values: Mapping[str, Any],
    found: DistalLockingResults,
    shown: Sequence[np.ndarray],
) -> None:
    """Write the figures and report.html."""
    pictures = {
        "images": (draw_images(shown, found.images), "Detections in some of the images."),
        "sensitivity": (draw_sensitivity(found), "Errors of the poses against noise."),
        "whole_system": (draw_operations(found.operations), "Errors of the drill's axis."),
    }
    page = report.Report(
        title="Distal locking of a nail",
        record=record,
        summary=values,
        columns=[
            report.Column("mounting", "robot on"),
            report.Column("view", "view"),
            report.Column("operation", "operation"),
            report.Column("estimator", "nail by"),
            report.Column("images", "images"),
            report.Column("angle_deg", "angle", "°"),
            report.Column("entry_mm", "entry error, worse hole", "mm"),
            report.Column("exit_mm", "exit error, worse hole", "mm"),
            report.Column("outcome", "outcome"),
        ],
        rows=found.operations,
        cases=[report.ReportCase("Pictures", report.save_figures(pictures, out))],
        subtitle="drill guide and nail from rendered C-arm images, and where the drill would go",
    )
    report.write_html(page, out / "report.html")


def draw_images(shown: Sequence[np.ndarray], rows: Rows) -> Figure:
    """Draw some of the images with a summary of their detections."""
    figure = Figure(figsize=(13.0, 6.9), layout="constrained")
    axes = figure.subplots(2, 3).reshape(-1)
    for axis, image, row in zip(axes, shown, rows, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
        axis.set_axis_off()
        guide = f"{row['balls']} of 28 balls" if row["guide"] else "guide not found"
        nail = f"nail {row['nail_axis_deg']:.2f}\N{DEGREE SIGN} off" if row["nail"] else "no nail"
        axis.set_title(f"{guide}, {nail}", fontsize=10)
    figure.suptitle("Nail and drill guide rendered over anatomy radiographs", fontsize=11)
    return figure


def draw_sensitivity(found: DistalLockingResults) -> Figure:
    """Draw figures 9 and 10 of [Y]."""
    figure = Figure(figsize=(14.0, 4.0), layout="constrained")
    axes = figure.subplots(1, 4)
    _draw_guide_errors(axes[0], found.center_curve, ("x_mm", "y_mm", "z_mm"))
    _draw_guide_errors(axes[1], found.center_curve, ("rx_deg", "ry_deg", "rz_deg"))
    _draw_nail_errors(axes[2], found.edge_curve, "axis_deg")
    _draw_nail_errors(axes[3], found.edge_curve, "in_plane_mm")
    axes[3].legend(fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure


def _draw_guide_errors(axis: Axes, rows: Rows, keys: Sequence[str]) -> None:
    sigma = [row["sigma_px"] for row in rows]
    for key, colour in zip(keys, ("#2563eb", "#c2410c", "#0f766e"), strict=True):
        errors = [row[key] for row in rows]
        axis.plot(sigma, errors, "o-", ms=3, color=colour, label=_AXES[key])
    axis.set_xlabel("noise of ball centres, sigma [px]")
    axis.set_title("guide by NL-DLT: mean deviation", fontsize=10)
    axis.legend(fontsize=8)


def _draw_nail_errors(axis: Axes, rows: Rows, key: str) -> None:
    for name, colour in _COLOURS.items():
        own = [row for row in rows if row["estimator"] == name]
        sigma, errors = ([row[k] for row in own] for k in ("sigma_px", key))
        axis.plot(sigma, errors, "o-", ms=3, color=colour, label=name)
    axis.set_xlabel("noise of edge points, sigma [px]")
    axis.set_ylabel(f"mean error, {_EDGE_TITLES[key]}")
    axis.set_title("nail, fronto-parallel images", fontsize=10)
    axis.set_yscale("log")


def draw_operations(operations: Rows) -> Figure:
    """Draw the errors of the drill axis in every operation."""
    figure = Figure(figsize=(12.0, 4.2), layout="constrained")
    kinds = list(dict.fromkeys((row["mounting"], row["view"]) for row in operations))
    grid = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axis, (mounting, view) in zip(grid, kinds, strict=True):
        _draw_kind(axis, operations, mounting, view)
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(
        "Where the drill would go; dotted: a 4 mm rod passes the 5 mm hole", fontsize=11
    )
    return figure


def _draw_kind(axis: Axes, operations: Rows, mounting: str, view: str) -> None:
    for name, colour in _COLOURS.items():
        own = operations_of(operations, mounting, view, name)
        x, y = ([row[key] for row in own] for key in ("angle_deg", "error_mm"))
        axis.scatter(x, y, s=18, color=colour, alpha=0.8, label=name)
    if mounting == "bone":
        angle, error = _AUTHORS_SYSTEM[view]
        axis.scatter([angle], [error], marker="x", color="black", label="mean of the authors")
    axis.axhline(0.5, color="0.5", linestyle=":", linewidth=1.0)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="angle to the hole's axis [deg]",
        ylabel="distance in the plane [mm]",
    )
    mount = mounting.replace("_", " ")
    axis.set_title(f"mounted on the {mount}, {_VIEW_NAMES[view]} view", fontsize=10)
    axis.grid(alpha=0.3, which="both")
