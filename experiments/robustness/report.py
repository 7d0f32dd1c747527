"""Make the tables and the figure of the robustness curves."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dartjax import pipeline, report
from dartjax.pipeline import AS_GIVEN, CAMERA_CURVES, REFINED, ROBUSTNESS_VALUES

AXES = {
    "camera_angle": "second view turned [deg]",
    "camera_shift": "second view shifted [mm]",
    "views": "views",
    "angles": "angle between two views [deg]",
    "landmarks": "landmark noise [mm]",
    "masks": "Dice of the masks",
}
_COLOURS = {AS_GIVEN: "#0f766e", REFINED: "#c2410c"}
_HIGHEST_MM = 4.0  # what is drawn
_MEASURES = {"dice": "Dice", "masd_mm": "MASD [mm]"}
_CAMERA_MEASURES = {
    "scene_aligned_dice": "Dice, scene aligned",
    "scene_aligned_masd_mm": "MASD, scene aligned [mm]",
    "camera_angle_left_deg": "turn left [deg]",
    "camera_shift_left_mm": "shift left [mm]",
}
Case = Mapping[str, Any]


def failed(case: Case) -> bool:
    """Return whether a case has no answer, or a MASD above 2 mm."""
    return not case["masd_mm"] <= pipeline.FAILURE_MM


def rows_of(cases: Sequence[Case], curve: str) -> list[dict[str, Any]]:
    """Make a row per value and arm: counts, and median and quartiles over the answers.

    The counts are of all cases, of cases without an answer, of flagged answers and of failures.
    Failures are included in the quartiles.
    """
    chosen = [case for case in cases if case["curve"] == curve]
    points = sorted({(case["value"], case["arm"]) for case in chosen})
    rows = []
    for value, arm in points:
        own = [case for case in chosen if (case["value"], case["arm"]) == (value, arm)]
        row: dict[str, Any] = {AXES[curve]: value}
        if len({arm for _, arm in points}) > 1:
            row["arm"] = arm
        row |= {
            "n": len(own),
            "no answer": sum(not np.isfinite(case["masd_mm"]) for case in own),
            "flagged": sum(case["flagged"] for case in own),
            "failures": sum(map(failed, own)),
        }
        for key, name in _MEASURES.items():
            low, middle, high = _quartiles(own, key)
            row |= {name: middle, f"{name} q1": low, f"{name} q3": high}
        if curve in CAMERA_CURVES:
            for key, name in _CAMERA_MEASURES.items():
                row[name] = _quartiles(own, key)[1]
        rows.append(row)
    return rows


def summary_of(cases: Sequence[Case], curves: Sequence[str]) -> dict[str, Any]:
    """Return the number of failures, and the median Dice at both ends of every curve."""
    summary: dict[str, Any] = {"failures": sum(map(failed, cases))}
    for curve in curves:
        table = rows_of(cases, curve)
        for row in (table[0], table[-1]):
            summary[f"{curve}_{row[AXES[curve]]:g}_dice_median"] = row["Dice"]
    return summary


def title_of(record: Mapping[str, Any], repeats: int) -> str:
    """Return the title of the figure."""
    kind = "SYNTHETIC ANATOMY - not VerSe: " if record["dataset_kind"] == "synthetic" else ""
    return (
        f"{kind}{record['dataset']}, {record['n_vertebrae']} vertebrae, subjects: "
        f"{record['n_subjects']}, draws: {repeats}\n"
        "median and quartiles; in between: failures (MASD > 2 mm or no answer) of n"
    )


def _quartiles(cases: Sequence[Case], key: str) -> tuple[float, float, float]:
    values = np.array([case[key] for case in cases], float)
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def write_tables(
    path: pathlib.Path, record: Mapping[str, Any], cases: Sequence[Case], curves: Sequence[str]
) -> None:
    """Write tables.md, or the reason why a table is missing (models that have seen a subject)."""
    parts = []
    for curve in curves:
        try:
            table = report.markdown_table(record, rows_of(cases, curve))
        except ValueError as error:
            table = f"{error}\n"
        parts.append(f"## {AXES[curve]}\n\n{table}")
    path.write_text("\n".join(parts), encoding="utf-8")


def draw(path: pathlib.Path, cases: Sequence[Case], curves: Sequence[str], title: str) -> None:
    """Draw Dice and MASD of every curve: medians, quartiles as bands, and failures of n."""
    figure = Figure(figsize=(3.6 * len(curves) + 0.6, 6.4), layout="constrained")
    axes = np.asarray(figure.subplots(2, len(curves), squeeze=False, sharex="col", sharey="row"))
    for column, curve in zip(axes.T, curves, strict=True):
        own = [case for case in cases if case["curve"] == curve]
        for axis, (key, name) in zip(column, _MEASURES.items(), strict=True):
            _draw_curve(axis, own, key)
            axis.grid(alpha=0.3)
            axis.set_ylabel(name if axis in axes[:, 0] else "")
        column[1].axhline(pipeline.FAILURE_MM, color="0.5", linewidth=0.8, linestyle=":")
        column[1].set_xlabel(AXES[curve])
        column[1].set_xticks(ROBUSTNESS_VALUES[curve])
        if len({case["arm"] for case in own}) > 1:
            column[0].legend(fontsize=8)
    highest = max(axes[1, 0].get_ylim()[1], 1.1 * pipeline.FAILURE_MM)
    axes[1, 0].set_ylim(0.0, min(highest, _HIGHEST_MM))
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)


def _draw_curve(axis: Axes, cases: Sequence[Case], key: str) -> None:
    arms = [arm for arm in (AS_GIVEN, REFINED) if any(case["arm"] == arm for case in cases)]
    values = sorted({case["value"] for case in cases})
    for place, arm in enumerate(arms):
        groups = [[c for c in cases if (c["value"], c["arm"]) == (v, arm)] for v in values]
        low, middle, high = np.array([_quartiles(group, key) for group in groups]).T
        axis.fill_between(values, low, high, color=_COLOURS[arm], alpha=0.15, linewidth=0)
        axis.plot(values, middle, marker="o", markersize=4, color=_COLOURS[arm], label=arm)
        if f"scene_aligned_{key}" in cases[0]:
            aligned = [_quartiles(group, f"scene_aligned_{key}")[1] for group in groups]
            label = f"{arm}, scene aligned"
            axis.plot(values, aligned, linestyle="--", color=_COLOURS[arm], label=label)
        if key == "masd_mm":
            for value, group in zip(values, groups, strict=True):
                axis.annotate(
                    f"{sum(map(failed, group))}/{len(group)}",
                    (value, 1.02 + 0.06 * place),
                    xycoords=axis.get_xaxis_transform(),
                    ha="center",
                    fontsize=7,
                    color=_COLOURS[arm],
                )
