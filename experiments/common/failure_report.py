"""Report how well failures are predicted and how well calibrated the intervals are."""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dartjax.data import StoredFailureModel
from dartjax.pipeline import FailureTrials, calibrated_std, failure_auroc
from dartjax.registration import interval_coverage, risk_coverage

_BINS = 5
_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_NORMAL = (0.6745, 0.8416, 1.0364, 1.2816, 1.6449, 1.96, 2.5758)  # half widths of those intervals
Probabilities = Float[np.ndarray, " case"]


def summary_of(
    trials: FailureTrials, probability: Probabilities, stored: StoredFailureModel
) -> dict[str, Any]:
    """Summarise failure prediction, the risk after abstention, and the calibration of intervals."""
    failed, given = trials.failed, probability <= stored.threshold
    curve = risk_coverage(probability, failed.astype(float))
    return {
        "n_answers": len(failed),
        "n_failures": int(failed.sum()),
        **failure_auroc(probability, failed),
        "risk_all": float(failed.mean()),
        "risk_at_90_coverage": curve.risk_at(0.9),
        "masd_median_all_mm": float(np.median(trials.masd_mm)),
        "masd_median_given_mm": float(np.median(trials.masd_mm[given])) if given.any() else np.nan,
        "threshold": stored.threshold,
        "coverage_at_threshold": float(given.mean()),
        "risk_at_threshold": float(failed[given].mean()) if given.any() else float("nan"),
        **interval_shares(trials, probability, stored),
    }


def interval_shares(
    trials: FailureTrials, probability: Probabilities, stored: StoredFailureModel
) -> dict[str, float]:
    """Compute the share of errors inside their 90 % intervals, of all and of given answers."""
    vertex_std, path_std = calibrated_std(trials.vertex_std, trials.path_std, probability, stored)
    shares = {}
    for name, chosen in (("all", probability >= 0.0), ("given", probability <= stored.threshold)):
        if chosen.any():
            inside = interval_coverage(trials.vertex_error[chosen], vertex_std[chosen])
            on_path = interval_coverage(trials.path_error[chosen], path_std[chosen])
            shares |= {
                f"vertices_in_90_interval_{name}": inside,
                f"path_points_in_90_interval_{name}": on_path,
                f"vertex_std_median_{name}_mm": float(np.median(vertex_std[chosen])),
                f"path_std_median_{name}_mm": float(np.median(path_std[chosen])),
            }
    return shares


def reliability(
    probability: Probabilities, failed: Bool[np.ndarray, " case"]
) -> list[dict[str, float]]:
    """Compute mean probability and share of failures in bins with equal numbers of cases."""
    order = np.argsort(probability, kind="stable")
    return [
        {
            "n": len(part),
            "probability": float(probability[part].mean()),
            "failed": float(failed[part].mean()),
        }
        for part in np.array_split(order, min(_BINS, len(order)))
    ]


def cases(trials: FailureTrials, probability: Probabilities) -> list[dict[str, Any]]:
    """Make one case per answer for metrics.json."""
    return [
        {
            "subject": str(trials.subject[i]),
            "level": str(trials.level[i]),
            "pair": int(trials.pair[i]),
            "detector": str(trials.detector[i]),
            "camera_severity": float(trials.severity[i]),
            "masd_mm": float(trials.masd_mm[i]),
            "failure_probability": float(probability[i]),
        }
        for i in range(len(probability))
    ]


def write_figure(
    file: pathlib.Path,
    trials: FailureTrials,
    probability: Probabilities,
    stored: StoredFailureModel,
    title: str,
) -> None:
    """Draw risk against coverage, and the reliability of probabilities and of intervals."""
    figure = Figure(figsize=(11.0, 3.6), layout="constrained")
    figure.suptitle(title)
    left, middle, right = figure.subplots(1, 3)
    _draw_risk(left, trials, probability, stored)
    _draw_reliability(middle, probability, trials.failed)
    _draw_intervals(right, trials, probability, stored)
    FigureCanvasAgg(figure).print_png(str(file))


def _draw_risk(
    axes: Any, trials: FailureTrials, probability: Probabilities, stored: StoredFailureModel
) -> None:
    failed = trials.failed.astype(float)
    curve, best = risk_coverage(probability, failed), risk_coverage(failed, failed)
    axes.plot(100 * curve.coverage, 100 * curve.risk, label="by probability of failure")
    axes.plot(100 * best.coverage, 100 * best.risk, ":", color="gray", label="best possible")
    axes.axhline(100 * failed.mean(), color="gray", lw=0.8, label="no abstention")
    axes.axvline(
        100 * np.mean(probability <= stored.threshold), color="C1", ls="--", label="threshold"
    )
    axes.set(xlabel="answers given [%]", ylabel="failures among them [%]", title="Risk")
    axes.legend(fontsize=8)


def _draw_reliability(
    axes: Any, probability: Probabilities, failed: Bool[np.ndarray, " case"]
) -> None:
    rows = reliability(probability, failed)
    axes.plot([0, 1], [0, 1], color="gray", lw=0.8)
    axes.plot([r["probability"] for r in rows], [r["failed"] for r in rows], "o-")
    axes.set(xlabel="probability of failure", ylabel="share that failed", title="Reliability")


def _draw_intervals(
    axes: Any, trials: FailureTrials, probability: Probabilities, stored: StoredFailureModel
) -> None:
    vertex_std, path_std = calibrated_std(trials.vertex_std, trials.path_std, probability, stored)
    given = probability <= stored.threshold
    axes.plot([50, 100], [50, 100], color="gray", lw=0.8)
    for name, error, std in (
        ("vertices", trials.vertex_error, vertex_std),
        ("path points", trials.path_error, path_std),
    ):
        for chosen, style in ((probability >= 0.0, "-"), (given, "--")):
            if not chosen.any():
                continue
            inside = [
                100 * float(np.mean(np.abs(error[chosen]) <= half * std[chosen]))
                for half in _NORMAL
            ]
            label = f"{name}, {'all' if style == '-' else 'given'}"
            axes.plot([100 * s for s in _SHARES], inside, style, label=label)
    axes.set(xlabel="interval [%]", ylabel="errors inside [%]", title="Intervals")
    axes.legend(fontsize=8)
