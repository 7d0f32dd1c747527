"""Make the tables and figures of the evaluation of trained networks."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dartjax import data
from dartjax.pipeline import CAPTURED_MM, LEARNED_SIMILARITY
from dartjax.report import markdown_table
from dartjax.training import Crops, IsolationAnswers, rank_correlation

_COLOURS = {LEARNED_SIMILARITY: "#c2410c", "local gradient NCC": "#0f766e", "xvr": "#64748b"}
# By key of the summary.
_TITLES = {
    "similarity": "Similarity",
    "captures": "Fits with one similarity only",
    "surrogate": "Initial estimate in one step",
    "isolation": "Isolation",
}
Row = Mapping[str, Any]


def summary_of(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Sum up the rows of every part that was evaluated."""
    summary: dict[str, Any] = {}
    if "prediction" in rows:
        summary["similarity"] = prediction_summary(rows["prediction"])
        summary["captures"] = capture_table(rows["capture"])
        summary["surrogate"] = surrogate_table(rows["surrogate"])
    if "isolation" in rows:
        summary["isolation"] = isolation_table(rows["isolation"])
    return summary


def cases_of(rows: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """Make the cases of metrics.json: the rows of all parts, with the name of their part."""
    return [{**row, "part": part} for part, own in rows.items() for row in own]


def tables_text(record: Row, summary: Row) -> str:
    """Make the text of tables.md."""
    text = []
    for key, found in summary.items():
        table = found if isinstance(found, list) else [found]
        text.append(f"## {_TITLES[key]}\n\n{markdown_table(record, table)}")
    return "\n".join(text)


def prediction_summary(rows: Sequence[Row]) -> dict[str, float]:
    """Summarise the error of predicted distances, and the direction of every similarity."""
    predicted, true = (np.array([row[key] for row in rows]) for key in ("predicted_mm", "true_mm"))
    log_error = np.abs(np.log1p(predicted) - np.log1p(true))
    expected = np.array([row["predicted_log_std"] for row in rows])
    cosines = {key: median(rows, key) for key in rows[0] if key.startswith("cosine")}
    return {
        "masd_error_mm": float(np.mean(np.abs(predicted - true))),
        "masd_error_of_the_median_mm": float(np.mean(np.abs(true - np.median(true)))),
        "rank_correlation": rank_correlation(predicted, true),
        "within_predicted_std": float(np.mean(log_error < expected)),  # .68 if calibrated
        **cosines,
    }


def capture_table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Summarise fits by similarity and start error: share within 2 mm, distances and offsets."""
    table = []
    for name in dict.fromkeys(row["similarity"] for row in rows):
        for start in sorted({row["start_mm"] for row in rows}):
            own = [r for r in rows if (r["similarity"], r["start_mm"]) == (name, start)]
            table.append(
                {
                    "similarity": name,
                    "start [mm]": start,
                    "n": len(own),
                    "within 2 mm": float(np.mean([r["masd_mm"] < CAPTURED_MM for r in own])),
                    "MASD [mm]": median(own, "masd_mm"),
                    "oracle MASD [mm]": median(own, "oracle_masd_mm"),
                    "off by [mm]": median(own, "shift_mm"),
                    "off by [deg]": median(own, "turn_deg"),
                }
            )
    return table


def surrogate_table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Summarise fits by start and number of refinement steps."""
    table = []
    for shot in (False, True):
        for steps in sorted({row["steps"] for row in rows}):
            own = [r for r in rows if (r["one_shot"], r["steps"]) == (shot, steps)]
            table.append(
                {
                    "start": "network's step" if shot else "landmarks",
                    "steps": steps,
                    "n": len(own),
                    "MASD, median [mm]": median(own, "masd_mm"),
                    "MASD, mean [mm]": float(np.mean([r["masd_mm"] for r in own])),
                    "ms": median(own, "milliseconds"),
                }
            )
    return table


def isolation_rows(crops: Crops, found: IsolationAnswers) -> list[dict[str, Any]]:
    """Make a row per vertebra; `guessed` says whether the network had an initial estimate."""
    keys = ("error_mm", "guess_error_mm", "nothing_mm", "mask_dice", "given_dice")
    guessed = np.asarray(found.hints.silhouette).max((1, 2)) > 0.0
    return [
        {"subject": str(crops.subject[i]), "level": data.MODELLED_LEVELS[crops.level[i]]}
        | {"guessed": bool(guessed[i])}
        | {key: float(getattr(found, key)[i]) for key in keys}
        for i in range(len(crops.level))
    ]


def isolation_table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Average over the vertebrae with and without an initial estimate.

    The columns are the thickness error inside the true mask, that of the initial estimate, the
    true thickness, and the Dice of the predicted and the given mask.
    """
    names = {
        "error_mm": "error [mm]",
        "guess_error_mm": "error of the guess [mm]",
        "nothing_mm": "thickness [mm]",
        "mask_dice": "mask Dice",
        "given_dice": "of the mask given",
    }
    table = []
    for guessed in sorted({row["guessed"] for row in rows}, reverse=True):
        own = [row for row in rows if row["guessed"] == guessed]
        means = {name: float(np.mean([r[key] for r in own])) for key, name in names.items()}
        if not guessed:
            means["error of the guess [mm]"] = float("nan")
        table.append({"guess": "shown" if guessed else "none", "n": len(own)} | means)
    return table


def draw_similarity(
    path: pathlib.Path, predicted: Sequence[Row], captured: Sequence[Row], note: str = ""
) -> None:
    """Draw predicted against true distance, cosines of the similarities, and errors of fits."""
    figure = Figure(figsize=(13.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    scatter, cosines, ends = figure.subplots(1, 3)
    true, estimate = (
        np.array([row[key] for row in predicted]) for key in ("true_mm", "predicted_mm")
    )
    most = 1.05 * float(max(true.max(), estimate.max()))
    scatter.plot([0, most], [0, most], color="0.7", linewidth=0.8)
    scatter.scatter(true, estimate, s=9, alpha=0.6, color=_COLOURS[LEARNED_SIMILARITY])
    scatter.set(xlabel="true MASD of a wrong fit [mm]", ylabel="predicted [mm]")
    names = list(_COLOURS)
    shown = [[row[f"cosine of the pose, {name}"] for row in predicted] for name in names]
    cosines.boxplot(shown, tick_labels=names, showfliers=False)
    cosines.axhline(0.0, color="0.7", linewidth=0.8)
    cosines.set(title="pose step: cosine with the direction to the ground truth", ylim=(-1, 1))
    cosines.title.set_fontsize(10)
    cosines.tick_params(axis="x", labelsize=8)
    for name in names:
        own = [row for row in capture_table(captured) if row["similarity"] == name]
        x, y = ([row[key] for row in own] for key in ("start [mm]", "MASD [mm]"))
        ends.plot(x, y, marker="o", label=name, color=_COLOURS[name])
    oracle = median(captured, "oracle_masd_mm")
    ends.axhline(oracle, color="0.7", linewidth=0.8, linestyle="--", label="best fit of the model")
    ends.set(xlabel="start error [mm], with 1.5 degrees per mm", ylabel="median final MASD [mm]")
    ends.set(ylim=(0, None))
    ends.legend(frameon=False, fontsize=8)
    figure.suptitle(note, fontsize=10)
    figure.savefig(path, dpi=120)


def draw_surrogate(path: pathlib.Path, rows: Sequence[Row], note: str = "") -> None:
    """Draw the error of the initial estimate in one step against the time."""
    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    starts = (("landmarks", "#64748b", -12), ("network's step", _COLOURS[LEARNED_SIMILARITY], 6))
    for start, colour, above in starts:
        own = [row for row in surrogate_table(rows) if row["start"] == start]
        x, y = [row["ms"] for row in own], [row["MASD, median [mm]"] for row in own]
        axis.plot(x, y, marker="o", color=colour, label=f"from {start}")
        for row, place in zip(own, zip(x, y, strict=True), strict=True):
            axis.annotate(
                str(row["steps"]),
                place,
                textcoords="offset points",
                xytext=(2, above),
                fontsize=8,
                color=colour,
            )
    axis.set(xlabel="time for one vertebra [ms]", ylabel="median MASD [mm]")
    axis.set(title="numbers: refinement steps", xlim=(0, None))
    axis.set_ylim(0, 1.15 * axis.get_ylim()[1])
    axis.legend(frameon=False, fontsize=8, loc="lower left")
    figure.suptitle(note, fontsize=9)
    figure.savefig(path, dpi=130)


def median(rows: Sequence[Row], key: str) -> float:
    """Return the median of the finite values; NaN if there are none."""
    values = np.array([row[key] for row in rows], float)
    return float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else np.nan
