"""Pictures and numbers of how well failures are foretold and intervals hold."""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dartjax.data import StoredFailureModel
from dartjax.pipeline import failure_auroc, inflated
from dartjax.registration import interval_coverage, risk_coverage
from experiments.evaluate_failure_model.stress import Trials

_BINS = 5
_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_NORMAL = (0.6745, 0.8416, 1.0364, 1.2816, 1.6449, 1.96, 2.5758)  # half widths of those intervals
Probabilities = Float[np.ndarray, " case"]


def summary_of(found: Trials, chance: Probabilities, stored: StoredFailureModel) -> dict[str, Any]:
    """How well failures are foretold, what abstention leaves, and how intervals hold."""
    failed, given = found.failed, chance <= stored.threshold
    curve = risk_coverage(chance, failed.astype(float))
    return {
        "n_answers": len(failed),
        "n_failures": int(failed.sum()),
        **failure_auroc(chance, failed),
        "risk_all": float(failed.mean()),
        "risk_at_90_coverage": curve.risk_at(0.9),
        "masd_median_all_mm": float(np.median(found.masd_mm)),
        "masd_median_given_mm": float(np.median(found.masd_mm[given])) if given.any() else np.nan,
        "threshold": stored.threshold,
        "coverage_at_threshold": float(given.mean()),
        "risk_at_threshold": float(failed[given].mean()) if given.any() else float("nan"),
        **interval_shares(found, chance, stored),
    }


def interval_shares(
    found: Trials, chance: Probabilities, stored: StoredFailureModel
) -> dict[str, float]:
    """Share of errors inside their 90 % intervals, of all answers and of those given."""
    vertex_std, path_std = inflated(found.vertex_std, found.path_std, chance, stored)
    shares = {}
    for name, chosen in (("all", chance >= 0.0), ("given", chance <= stored.threshold)):
        if chosen.any():
            inside = interval_coverage(found.vertex_error[chosen], vertex_std[chosen])
            on_path = interval_coverage(found.path_error[chosen], path_std[chosen])
            shares |= {
                f"vertices_in_90_interval_{name}": inside,
                f"path_points_in_90_interval_{name}": on_path,
                f"vertex_std_median_{name}_mm": float(np.median(vertex_std[chosen])),
                f"path_std_median_{name}_mm": float(np.median(path_std[chosen])),
            }
    return shares


def reliability(chance: Probabilities, failed: Bool[np.ndarray, " case"]) -> list[dict[str, float]]:
    """Mean probability and share of failures in bins with equally many cases."""
    order = np.argsort(chance, kind="stable")
    return [
        {
            "n": len(part),
            "probability": float(chance[part].mean()),
            "failed": float(failed[part].mean()),
        }
        for part in np.array_split(order, min(_BINS, len(order)))
    ]


def cases(found: Trials, chance: Probabilities) -> list[dict[str, Any]]:
    """One row per answer for metrics.json."""
    return [
        {
            "subject": str(found.subject[i]),
            "level": str(found.level[i]),
            "pair": int(found.pair[i]),
            "detector": str(found.detector[i]),
            "camera_severity": float(found.severity[i]),
            "masd_mm": float(found.masd_mm[i]),
            "failure_probability": float(chance[i]),
        }
        for i in range(len(chance))
    ]


def write_figure(
    file: pathlib.Path,
    found: Trials,
    chance: Probabilities,
    stored: StoredFailureModel,
    title: str,
) -> None:
    """Risk against coverage, reliability of the probabilities, and of the intervals."""
    figure = Figure(figsize=(11.0, 3.6), layout="constrained")
    figure.suptitle(title)
    left, middle, right = figure.subplots(1, 3)
    _draw_risk(left, found, chance, stored)
    _draw_reliability(middle, chance, found.failed)
    _draw_intervals(right, found, chance, stored)
    FigureCanvasAgg(figure).print_png(str(file))


def _draw_risk(axes: Any, found: Trials, chance: Probabilities, stored: StoredFailureModel) -> None:
    failed = found.failed.astype(float)
    curve, best = risk_coverage(chance, failed), risk_coverage(failed, failed)
    axes.plot(100 * curve.coverage, 100 * curve.risk, label="by probability of failure")
    axes.plot(100 * best.coverage, 100 * best.risk, ":", color="gray", label="best possible")
    axes.axhline(100 * failed.mean(), color="gray", lw=0.8, label="no abstention")
    axes.axvline(100 * np.mean(chance <= stored.threshold), color="C1", ls="--", label="threshold")
    axes.set(xlabel="answers given [%]", ylabel="failures among them [%]", title="Risk")
    axes.legend(fontsize=8)


def _draw_reliability(axes: Any, chance: Probabilities, failed: Bool[np.ndarray, " case"]) -> None:
    rows = reliability(chance, failed)
    axes.plot([0, 1], [0, 1], color="gray", lw=0.8)
    axes.plot([r["probability"] for r in rows], [r["failed"] for r in rows], "o-")
    axes.set(xlabel="probability of failure", ylabel="share that failed", title="Reliability")


def _draw_intervals(
    axes: Any, found: Trials, chance: Probabilities, stored: StoredFailureModel
) -> None:
    vertex_std, path_std = inflated(found.vertex_std, found.path_std, chance, stored)
    given = chance <= stored.threshold
    axes.plot([50, 100], [50, 100], color="gray", lw=0.8)
    for name, error, std in (
        ("vertices", found.vertex_error, vertex_std),
        ("path points", found.path_error, path_std),
    ):
        for chosen, style in ((chance >= 0.0, "-"), (given, "--")):
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
