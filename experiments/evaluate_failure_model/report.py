"""Summarise wrong cameras and repair, in addition to `failure_report`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dartjax import pipeline
from dartjax.pipeline import FailureTrials, Repair


def camera_summary(
    trials: FailureTrials, probability: Float[np.ndarray, " case"]
) -> dict[str, Any]:
    """Summarise failure prediction, separately for true and for wrong cameras."""
    summary: dict[str, Any] = {}
    for name, chosen in (
        ("true_cameras", trials.severity == 0.0),
        ("wrong_cameras", trials.severity > 0.0),
    ):
        if chosen.any():
            key = f"failure_auroc_{name}"
            summary |= pipeline.failure_auroc(probability[chosen], trials.failed[chosen], key)
            summary[f"n_failures_{name}"] = int(trials.failed[chosen].sum())
    return summary


def repair_summary(repairs: Sequence[Repair]) -> dict[str, Any]:
    """Count, among abstentions, the failures that each repair method repairs and the successes it
    spoils."""
    if not repairs:
        return {}
    before = np.array([repair.masd_mm for repair in repairs])
    failed = before > pipeline.FAILURE_MM
    summary: dict[str, Any] = {"n_refused": len(repairs), "n_refused_failures": int(failed.sum())}
    for name, after in (
        ("recovered", np.array([repair.masd_recovered_mm for repair in repairs])),
        ("third_view", np.array([repair.masd_third_view_mm for repair in repairs])),
    ):
        fine = after <= pipeline.FAILURE_MM
        summary |= {
            f"failures_repaired_{name}": int(np.sum(failed & fine)),
            f"successes_spoiled_{name}": int(np.sum(~failed & ~fine)),
            f"masd_median_refused_{name}_mm": float(np.nanmedian(after)),
        }
    summary["masd_median_refused_mm"] = float(np.median(before))
    return summary
