"""Summary of the distal-locking study from the rows of its parts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dartjax.simulation.distal._operation import NAIL_POSE_ESTIMATORS

Rows = list[dict[str, Any]]
PUBLISHED_IMAGES = 78


class DistalLockingResults(NamedTuple):
    """Results of the parts of the study."""

    images: Rows  # of guide and nail
    negatives: Rows  # images that lack one or both
    pose_tables: dict[str, Rows]  # of the guide's estimators, by name of the point set
    center_curve: Rows
    edge_curve: Rows
    poses_per_second: float
    operations: Rows
    reference_poses: Rows  # pairs of poses that rods allow
    calibrations: Rows


def distal_locking_summary(results: DistalLockingResults) -> dict[str, Any]:
    """Summarise all parts."""
    summary = _detection_summary(results.images, results.negatives)
    for view, prefix in (("fronto_parallel", "fp"), ("generic", "generic")):
        operations = operations_of(results.operations, "bone", view, NAIL_POSE_ESTIMATORS[0])
        found = operation_statistics(operations)
        summary |= {
            f"{prefix}_angle_deg": found["angle_mean_deg"],
            f"{prefix}_error_mm": found["error_mean_mm"],
            f"{prefix}_coverage": found["drilled"] / max(len(operations), 1),
            f"{prefix}_rod_passes": found["rod_passes_fraction"],
            f"{prefix}_images": found["images_mean"],
        }
    return (
        summary
        | _pose_summary(results.pose_tables)
        | {
            "poses_per_second": results.poses_per_second,
            "reference_angle_max_deg": max(row["angle_deg"] for row in results.reference_poses),
            "reference_error_max_mm": max(
                max(row["entry_mm"], row["exit_mm"]) for row in results.reference_poses
            ),
            "calibration_rms_px": _mean(results.calibrations, "rms_px"),
            "distortion_left_mean_mm": _mean(results.calibrations, "distortion_left_mean_mm"),
            "distortion_left_max_mm": max(
                r["distortion_left_max_mm"] for r in results.calibrations
            ),
        }
    )


def _detection_summary(images: Rows, negatives: Rows) -> dict[str, Any]:
    both = [row["guide"] and row["nail"] for row in images]
    guides = [row for row in images if row["guide"]]
    of_published = round(PUBLISHED_IMAGES * float(np.mean(both)))
    return {
        "num_images": len(both),
        "detected_of_78": of_published if len(both) != PUBLISHED_IMAGES else int(sum(both)),
        "guide_detected": sum(row["guide"] for row in images),
        "nail_detected": sum(row["nail"] for row in images),
        "num_negatives": len(negatives),
        "false_positives": sum(row["false_guide"] or row["false_nail"] for row in negatives),
        "see_ms": 1e3 * float(np.median([row["seconds"] for row in images])),
        "center_rms_u_px": _rms(guides, "center_rms_u_px"),
        "center_rms_v_px": _rms(guides, "center_rms_v_px"),
        "guide_axis_deg": _mean(guides, "guide_axis_deg"),
        "guide_in_plane_mm": _mean(guides, "guide_in_plane_mm"),
        "guide_depth_mm": _mean(guides, "guide_depth_mm"),
        "nail_axis_deg": _mean(images, "nail_axis_deg"),
        "nail_in_plane_mm": _mean(images, "nail_in_plane_mm"),
    }


def _pose_summary(tables: Mapping[str, Rows]) -> dict[str, Any]:
    """Residuals of NL-DLT."""
    summary: dict[str, Any] = {}
    same = []
    for name, table in tables.items():
        row = next(row for row in table if row["estimator"] == "NL-DLT")
        suffix = "" if name.endswith("images") else "_at_" + name.split()[1].replace(".", "")
        summary[f"nl_dlt_2d_mm{suffix}"] = row["residual_2d_mm"]
        summary[f"nl_dlt_3d_mm{suffix}"] = row["residual_3d_mm"]
        same.append(row["same_minimum_fraction"])
    return summary | {"nl_dlt_same_minimum": min(same)}


def operations_of(rows: Rows, mounting: str, view: str, estimator: str) -> Rows:
    """Select the operations of one mounting, view and estimator."""
    wanted = (mounting, view, estimator)
    return [r for r in rows if (r["mounting"], r["view"], r["estimator"]) == wanted]


def operation_statistics(rows: Rows) -> dict[str, Any]:
    """Summarise operations of one kind: number of drilled holes, and their errors."""
    drilled = [row for row in rows if row["outcome"] == "drilled"]
    return {
        "operations": len(rows),
        "drilled": len(drilled),
        "angle_mean_deg": _mean(drilled, "angle_deg"),
        "angle_p95_deg": _percentile_95(drilled, "angle_deg"),
        "error_mean_mm": _mean(drilled, "error_mm"),
        "error_p95_mm": _percentile_95(drilled, "error_mm"),
        "rod_passes_fraction": sum(row["rod_passes"] for row in rows) / max(len(rows), 1),
        "images_mean": _mean(rows, "images"),
    }


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    values = np.array([row[key] for row in rows if key in row], float)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _rms(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    values = np.array([row[key] for row in rows if key in row], float)
    return float(np.sqrt(np.nanmean(values**2))) if len(values) else float("nan")


def _percentile_95(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(np.percentile([row[key] for row in rows], 95)) if rows else float("nan")
