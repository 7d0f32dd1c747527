"""Make rows and summaries of `hybrid_robot`, with the numbers of Li, Du and Yu (2020)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dartjax.robot import StatusCode
from dartjax.robot.arms import STRUCTURE_NAMES, Identifiability
from dartjax.simulation import COMPENSATION_METHODS, DRIVE_MODELS, DriveErrors

PRINTED_LEGS_MM = (*[50.0] * 8, 80.0, 58.31, 53.85, 70.71, 163.095, 53.85)  # table 4
PUBLISHED_MEAN_MM = 0.17
PUBLISHED_RESIDUALS = {  # table 7: share above 1 N or 0.1 N m, max, min, mean
    "Fx": (0.1270, 1.501, 0.002, 0.5115),
    "Fy": (0.1746, 1.776, 0.047, 0.7477),
    "Fz": (0.0635, 1.496, 0.007, 0.4430),
    "Tx": (0.0, 0.093, 0.0, 0.0359),
    "Ty": (0.0, 0.064, 0.0, 0.0264),
    "Tz": (0.206, 0.133, 0.006, 0.0617),
}
AXES = tuple(PUBLISHED_RESIDUALS)  # of joint 5
PREFIXES = dict(zip(DRIVE_MODELS, ("uncalibrated", "calibrated", "floor"), strict=True))
_METHOD_PREFIXES = dict(zip(COMPENSATION_METHODS, ("nominal_", "polynomial_", ""), strict=True))
_LIMITS = {"N": 1.0, "N m": 0.1}  # what the shares are above

Row = dict[str, Any]
Residuals = Mapping[str, np.ndarray]  # by method, (robot, pose, 6)


def leg_rows(ideal: np.ndarray, errors: DriveErrors) -> list[Row]:
    """Make a row per leg: lengths of table 4, and absolute errors over all robots."""
    legs = {name: np.asarray(errors.legs_mm[name]) for name in DRIVE_MODELS}
    return [
        {
            "leg": i + 1,
            "table_4_mm": printed,
            "ideal_mm": float(ideal[i]),
            **{f"{name}_mean_mm": float(legs[name][:, i].mean()) for name in DRIVE_MODELS},
            **{f"{name}_max_mm": float(legs[name][:, i].max()) for name in DRIVE_MODELS},
        }
        for i, printed in enumerate(PRINTED_LEGS_MM)
    ]


def leg_summary(ideal: np.ndarray, errors: DriveErrors) -> Row:
    """Summarise the distance errors of all legs and robots.

    `max` is the 95th percentile over robots of a robot's largest error, `worst` is the largest
    error of all robots. `floor` uses the true parameters, so that only slider and tracker errors
    remain.
    """
    summary: Row = {
        "table_4_largest_difference_mm": float(np.abs(ideal - PRINTED_LEGS_MM).max()),
        "published_distance_error_mean_mm": PUBLISHED_MEAN_MM,
        "robots_calibrated_share": float(np.mean(errors.status == StatusCode.OK)),
    }
    for name, prefix in PREFIXES.items():
        legs = np.asarray(errors.legs_mm[name])
        summary |= {
            f"{prefix}_distance_error_mean_mm": float(legs.mean()),
            f"{prefix}_distance_error_max_mm": float(np.percentile(legs.max(1), 95.0)),
            f"{prefix}_distance_error_max_median_robot_mm": float(np.median(legs.max(1))),
            f"{prefix}_distance_error_worst_mm": float(legs.max()),
            f"{prefix}_position_error_mean_mm": float(np.mean(errors.position_mm[name])),
            f"{prefix}_position_error_max_mm": float(np.max(errors.position_mm[name])),
            f"{prefix}_tilt_error_mean_deg": float(np.rad2deg(np.mean(errors.tilt_rad[name]))),
        }
    return summary


def rank_summary(seen: Mapping[str, Identifiability]) -> Row:
    """Return the ranks for 7 parameters from legs and for 13 unknowns from planned poses."""
    return {
        "parameters_seen_by_legs": int(seen["legs"].rank),
        "unknowns_seen_by_planned_poses": int(seen["points"].rank),
    }


def parameter_rows(seen: Mapping[str, Identifiability]) -> list[Row]:
    """Make a row per structure parameter: its identifiability from legs and planned poses."""
    legs, points = np.asarray(seen["legs"].seen), np.asarray(seen["points"].seen)
    return [
        {"parameter": name, "seen by the 14 legs": legs[i], "seen by planned poses": points[i]}
        for i, name in enumerate(STRUCTURE_NAMES)
    ]


def weight_rows(residuals: Residuals) -> list[Row]:
    """Make the rows of table 7: one per method and axis, over all robots and poses."""
    return [
        _weight_row(method, axis, values[..., i])
        for method, values in residuals.items()
        for i, axis in enumerate(AXES)
    ]


def _weight_row(method: str, axis: str, residual: np.ndarray) -> Row:
    """Make one row of table 7; `residual` is (robot, pose) of one axis."""
    size = np.abs(residual)
    unit = "N" if axis.startswith("F") else "N m"
    share, most, least, mean = PUBLISHED_RESIDUALS[axis]
    return {
        "method": method,
        "axis": axis,
        "unit": unit,
        "mean": float(size.mean()),
        "max": float(size.max()),
        "max, median robot": float(np.median(size.max(axis=1))),
        "min": float(size.min()),
        "share above 1 N or 0.1 N m": float((size > _LIMITS[unit]).mean()),
        "mean, reported by the authors": mean,
        "max, reported by the authors": most,
        "min, reported by the authors": least,
        "share, reported by the authors": share,
    }


def weight_summary(residuals: Residuals) -> Row:
    """Summarise residuals: mean of the worst axis, and maximum over all axes, poses and robots.

    The rigid tool has no prefix (`force_residual_mean_N`); the other two methods have one.
    """
    summary: Row = {}
    for method in reversed(COMPENSATION_METHODS):
        prefix, size = _METHOD_PREFIXES[method], np.abs(residuals[method])
        mean, most = size.mean(axis=(0, 1)), size.max(axis=(0, 1))
        for name, own, unit in (("force", slice(0, 3), "N"), ("torque", slice(3, 6), "Nm")):
            summary[f"{prefix}{name}_residual_mean_{unit}"] = float(mean[own].max())
            summary[f"{prefix}{name}_residual_max_{unit}"] = float(most[own].max())
    return summary


def error_rows(summary: Mapping[str, Any], labels: Mapping[str, str]) -> list[Row]:
    """Make the rows of tables 5 and 6: one per set of parameters the robots were driven with."""
    return [
        {
            "driven with": labels[name],
            "mean mm": summary[f"{prefix}_distance_error_mean_mm"],
            "largest leg, 95 % of robots mm": summary[f"{prefix}_distance_error_max_mm"],
            "largest leg, worst robot mm": summary[f"{prefix}_distance_error_worst_mm"],
            "position, mean mm": summary[f"{prefix}_position_error_mean_mm"],
            "tilt, mean deg": summary[f"{prefix}_tilt_error_mean_deg"],
            "mean reported by the authors mm": PUBLISHED_MEAN_MM if name == "nominal" else None,
        }
        for name, prefix in PREFIXES.items()
    ]
