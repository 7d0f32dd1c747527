"""Summary, tables and pictures of the distal-locking experiment."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dartjax import report
from experiments.distal_locking import opencv as distal_opencv

Rows = list[dict[str, Any]]
THROUGH, FRONTO, GENERIC = (
    "through-hole",
    "fronto-parallel, closed form",
    "generic, 15 points",
)
_COLOURS = {THROUGH: "#0f766e", FRONTO: "#c2410c", GENERIC: "#6d28d9"}
_VIEW_NAMES = {"fronto_parallel": "fronto-parallel", "generic": "generic"}
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


class Results(NamedTuple):
    """What the parts of the experiment found."""

    images: Rows
    negatives: Rows
    pose_tables: dict[str, Rows]
    center_curve: Rows
    edge_curve: Rows
    poses_per_second: float
    operations: Rows
    spread: Rows
    calibrations: Rows


def summary(found: Results) -> dict[str, Any]:
    """The numbers by which the experiment is judged."""
    both = [row["guide"] and row["nail"] for row in found.images]
    true_guides = [row for row in found.images if row["guide"]]
    values: dict[str, Any] = {
        "num_images": len(both),
        "detected_of_78": round(78 * float(np.mean(both))) if len(both) != 78 else int(sum(both)),
        "guide_detected": sum(row["guide"] for row in found.images),
        "nail_detected": sum(row["nail"] for row in found.images),
        "num_negatives": len(found.negatives),
        "false_positives": sum(r["false_guide"] or r["false_nail"] for r in found.negatives),
        "see_ms": 1e3 * float(np.median([row["seconds"] for row in found.images])),
        "center_rms_u_px": _rms(true_guides, "center_rms_u_px"),
        "center_rms_v_px": _rms(true_guides, "center_rms_v_px"),
        "guide_axis_deg": _mean(true_guides, "guide_axis_deg"),
        "guide_in_plane_mm": _mean(true_guides, "guide_in_plane_mm"),
        "guide_depth_mm": _mean(true_guides, "guide_depth_mm"),
        "nail_axis_deg": _mean(found.images, "nail_axis_deg"),
        "nail_in_plane_mm": _mean(found.images, "nail_in_plane_mm"),
    }
    for view, key in (("fronto_parallel", "fp"), ("generic", "generic")):
        own = _locks(found.operations, "bone", view, THROUGH)
        drilled = [row for row in own if row["outcome"] == "drilled"]
        values |= {
            f"{key}_angle_deg": _mean(drilled, "angle_deg"),
            f"{key}_error_mm": _mean(drilled, "error_mm"),
            f"{key}_coverage": len(drilled) / max(len(own), 1),
            f"{key}_rod_passes": sum(row["rod_passes"] for row in own) / max(len(own), 1),
            f"{key}_images": _mean(own, "images"),
        }
    for name, table in found.pose_tables.items():
        row = next(row for row in table if row["estimator"] == "NL-DLT")
        suffix = "" if name.endswith("images") else "_at_" + name.split()[1].replace(".", "")
        values |= {f"nl_dlt_2d_mm{suffix}": row["2D [mm]"], f"nl_dlt_3d_mm{suffix}": row["3D [mm]"]}
    same = [row for t in found.pose_tables.values() for row in t if row["estimator"] == "NL-DLT"]
    return values | {
        "nl_dlt_same_minimum": min(row["same minimum as NL-EV"] for row in same),
        "poses_per_second": found.poses_per_second,
        "reference_angle_max_deg": max(row["angle_deg"] for row in found.spread),
        "reference_error_max_mm": max(row["exit_mm"] for row in found.spread),
        "calibration_rms_px": _mean(found.calibrations, "rms [px]"),
        "distortion_left_mean_mm": _mean(found.calibrations, "distortion left, mean [mm]"),
        "distortion_left_max_mm": max(r["distortion left, max [mm]"] for r in found.calibrations),
    }


def _locks(rows: Rows, mounting: str, view: str, estimator: str) -> Rows:
    wanted = (mounting, view, estimator)
    return [r for r in rows if (r["mounting"], r["view"], r["estimator"]) == wanted]


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    own = np.array([row[key] for row in rows if key in row], float)
    own = own[np.isfinite(own)]
    return float(own.mean()) if len(own) else float("nan")


def _rms(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    own = np.array([row[key] for row in rows if key in row], float)
    return float(np.sqrt(np.nanmean(own**2))) if len(own) else float("nan")


def short_text(values: Mapping[str, Any]) -> str:
    """What a user wants to read at once."""
    return (
        f"guide and nail in {values['detected_of_78']} of 78 images, "
        f"{values['false_positives']} false positives in {values['num_negatives']}\n"
        f"fronto-parallel {values['fp_angle_deg']:.2f} deg, {values['fp_error_mm']:.2f} mm; "
        f"generic {values['generic_angle_deg']:.2f} deg, {values['generic_error_mm']:.2f} mm"
    )


def write_tables(path: pathlib.Path, record: Mapping[str, Any], found: Results) -> None:
    """tables.md."""
    parts = [
        ("Detection", _detection_rows(found)),
        ("Balls, beside OpenCV on the same images", distal_opencv.detection_rows(found.images)),
        *[
            (f"Pose of the drill guide: {k}", _with_authors(t))
            for k, t in found.pose_tables.items()
        ],
        ("NL-DLT against noise of the centres (mean deviation)", found.center_curve),
        ("Pose of the nail against noise of its edges", found.edge_curve),
        ("Whole system", _system_rows(found.operations)),
        ("Calibration of the C-arm", found.calibrations),
        ("Spread of reference poses with two rods", _spread_rows(found.spread)),
    ]
    text = "\n".join(
        f"## {title}\n\n{report.markdown_table(record, rows)}" for title, rows in parts if rows
    )
    path.write_text(text, encoding="utf-8")


def _detection_rows(found: Results) -> Rows:
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


def _with_authors(table: Rows) -> Rows:
    rows = []
    for row in table:
        published = _AUTHORS.get(row["estimator"])
        note = "{:g} / {:g}".format(*published) if published else ""
        rows.append({**row, "2D / 3D reported by the authors": note})
    return rows


def _system_rows(operations: Rows) -> Rows:
    rows = []
    kinds = dict.fromkeys((r["mounting"], r["view"], r["estimator"]) for r in operations)
    for mounting, view, estimator in kinds:
        own = _locks(operations, mounting, view, estimator)
        good = [row for row in own if row["outcome"] == "drilled"]
        angle, error = (np.array([row[k] for row in good]) for k in ("angle_deg", "error_mm"))
        authors = "{:g} deg, {:g} mm".format(*_AUTHORS_SYSTEM[view])
        rows.append(
            {
                "mounting": mounting,
                "view": _VIEW_NAMES[view],
                "nail by": estimator,
                "drilled": f"{len(good)} of {len(own)}",
                "angle [deg]": _mean(good, "angle_deg"),
                "angle 95 % [deg]": float(np.percentile(angle, 95)) if good else np.nan,
                "error [mm]": _mean(good, "error_mm"),
                "error 95 % [mm]": float(np.percentile(error, 95)) if good else np.nan,
                "rod passes": sum(row["rod_passes"] for row in own) / max(len(own), 1),
                "images": _mean(own, "images"),
                "reported by the authors": authors if mounting == "bone" else "",
            }
        )
    return rows


def _spread_rows(spread: Rows) -> Rows:
    def reach(key: str) -> str:
        own = [row[key] for row in spread]
        return f"{min(own):.1f} to {max(own):.1f}"

    return [
        {
            "poses": len(spread),
            "angle [deg]": reach("angle_deg"),
            "distance at 100 and 120 mm [mm]": f"{reach('entry_mm')} and {reach('exit_mm')}",
            "reported by the authors": "0 to 0.9 deg, 0 to 3.9 mm",
        }
    ]


def write_pictures(
    out: pathlib.Path,
    record: Mapping[str, Any],
    values: Mapping[str, Any],
    found: Results,
    shown: Sequence[np.ndarray],
) -> None:
    """The pictures and report.html in the run folder."""
    pictures = {
        "images": (draw_images(shown, found.images), "What was found in some of the images."),
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
            report.Column("entry_mm", "entry error", "mm"),
            report.Column("exit_mm", "exit error", "mm"),
            report.Column("outcome", "outcome"),
        ],
        rows=found.operations,
        cases=[report.ReportCase("Pictures", report.save_figures(pictures, out))],
        subtitle="drill guide and nail from rendered C-arm images, and where the drill would go",
    )
    report.write_html(page, out / "report.html")


def draw_images(shown: Sequence[np.ndarray], rows: Rows) -> Figure:
    """Some of the images, with what was found in them."""
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


def draw_sensitivity(found: Results) -> Figure:
    """Figures 9 and 10 of [Y]."""
    figure = Figure(figsize=(14.0, 4.0), layout="constrained")
    axes = figure.subplots(1, 4)
    sigma = [row["sigma [px]"] for row in found.center_curve]
    for name, unit, axis in (("xyz", "mm", axes[0]), ("rxryrz", "deg", axes[1])):
        keys = [f"{k} [{unit}]" for k in (name if unit == "mm" else ("rx", "ry", "rz"))]
        for key, colour in zip(keys, ("#2563eb", "#c2410c", "#0f766e"), strict=True):
            axis.plot(
                sigma, [r[key] for r in found.center_curve], "o-", ms=3, color=colour, label=key
            )
        axis.set_xlabel("noise of ball centres, sigma [px]")
        axis.set_title("guide by NL-DLT: mean deviation", fontsize=10)
        axis.legend(fontsize=8)
    for key, axis in (("axis [deg]", axes[2]), ("in plane [mm]", axes[3])):
        for name, colour in _COLOURS.items():
            own = [row for row in found.edge_curve if row["estimator"] == name]
            x = [row["sigma [px]"] for row in own]
            axis.plot(x, [row[key] for row in own], "o-", ms=3, color=colour, label=name)
        axis.set_xlabel("noise of edge points, sigma [px]")
        axis.set_ylabel(f"mean error, {key}")
        axis.set_title("nail, fronto-parallel images", fontsize=10)
        axis.set_yscale("log")
    axes[3].legend(fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure


def draw_operations(operations: Rows) -> Figure:
    """Errors of the drill's axis in every operation."""
    figure = Figure(figsize=(12.0, 4.2), layout="constrained")
    kinds = list(dict.fromkeys((row["mounting"], row["view"]) for row in operations))
    for axis, (mounting, view) in zip(
        figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True
    ):
        for name, colour in _COLOURS.items():
            own = _locks(operations, mounting, view, name)
            x, y = ([row[key] for row in own] for key in ("angle_deg", "error_mm"))
            axis.scatter(x, y, s=18, color=colour, alpha=0.8, label=name)
        if mounting == "bone":
            angle, error = _AUTHORS_SYSTEM[view]
            axis.scatter([angle], [error], marker="x", color="black", label="mean of the authors")
        axis.axhline(0.5, color="0.5", linestyle=":", linewidth=1.0)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("angle to the hole's axis [deg]")
        axis.set_ylabel("distance in the plane [mm]")
        mount = mounting.replace("_", " ")
        axis.set_title(f"mounted on the {mount}, {_VIEW_NAMES[view]} view", fontsize=10)
        axis.grid(alpha=0.3, which="both")
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(
        "Where the drill would go; dotted: a 4 mm rod passes the 5 mm hole", fontsize=11
    )
    return figure
