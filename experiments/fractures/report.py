"""Make the tables and figures of the fracture study."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dartjax import pipeline
from dartjax.pipeline import BODY_PLACES, MODES_OFF, MODES_ON, FractureAnswer

_COLOURS = {MODES_OFF: "#64748b", MODES_ON: "#c2410c"}
_EXAMPLES = 4
_PANELS = {
    "dice": "Dice",
    "masd_mm": "MASD [mm]",
    "anterior_height_error_mm": "anterior height, fitted - true [mm]",
    "middle_height_error_mm": "middle height, fitted - true [mm]",
}
Row = Mapping[str, Any]


def rows_of(cases: Sequence[Row]) -> list[dict[str, Any]]:
    """Make a row per grade and arm: medians of Dice, MASD and height errors, and height bias."""
    rows = []
    for grade in sorted({case["grade"] for case in cases}):
        for arm in (MODES_OFF, MODES_ON):
            own = [case for case in cases if (case["grade"], case["arm"]) == (grade, arm)]
            row: dict[str, Any] = {"grade": grade, "arm": arm, "n": len(own)}
            row["Dice"] = _median([case["dice"] for case in own])
            row["MASD [mm]"] = _median([case["masd_mm"] for case in own])
            for place in BODY_PLACES:
                error = [case[f"{place}_height_error_mm"] for case in own]
                row[f"{place} height error [mm]"] = _median(np.abs(error))
                row[f"{place} bias [mm]"] = float(np.mean(error))
            rows.append(row)
    return rows


def summary_of(by_grade: Sequence[Row]) -> dict[str, Any]:
    """Return the medians of `rows_of` under the keys of metrics.json."""
    return {
        f"grade_{row['grade']}_{'on' if row['arm'] == MODES_ON else 'off'}_{key}": row[name]
        for row in by_grade
        for key, name in (("dice_median", "Dice"), ("masd_mm_median", "MASD [mm]"))
    }


def worst_fractures(
    fractures: Sequence[Row], answers: Mapping[str, Sequence[FractureAnswer]]
) -> list[tuple[str, dict[str, FractureAnswer]]]:
    """Return the answers to the most severe fractures, with titles, the most severe first."""
    severity = [(-each.get("grade", 0), -each.get("loss", 0.0)) for each in fractures]
    order = sorted(range(len(severity)), key=severity.__getitem__)[:_EXAMPLES]
    examples = []
    for i in order:
        own = {arm: given[i] for arm, given in answers.items()}
        task, fracture = own[MODES_OFF].task, fractures[i]
        what = f"{fracture.get('kind', 'intact')}, grade {fracture.get('grade', 0)}"
        examples.append((f"{task.subject} {task.level}, {what}", own))
    return examples


def _median(values: Sequence[float] | np.ndarray) -> float:
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return float(np.median(finite)) if len(finite) else float("nan")


def title_of(record: Row, what: str) -> str:
    """Make the title of a figure, which says what the data are."""
    if record["dataset_kind"] == "synthetic":
        return f"SYNTHETIC ANATOMY - not VerSe: {what}"
    return f"{record['dataset']} ({record['dataset_kind']}): {what}"


def draw(path: pathlib.Path, cases: Sequence[Row], record: Row) -> None:
    """Draw every case as a dot and the medians by grade as lines."""
    figure = Figure(figsize=(14.0, 3.9), layout="constrained")
    grades = sorted({case["grade"] for case in cases})
    for axis, (key, name) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        for shift, arm in ((-0.08, MODES_OFF), (0.08, MODES_ON)):
            own = [case for case in cases if case["arm"] == arm]
            x = np.array([case["grade"] for case in own]) + shift
            axis.scatter(x, [c[key] for c in own], s=14, color=_COLOURS[arm], alpha=0.5)
            middle = [_median([c[key] for c in own if c["grade"] == g]) for g in grades]
            axis.plot(np.array(grades) + shift, middle, color=_COLOURS[arm], label=arm)
        if key.endswith("error_mm"):
            axis.axhline(0.0, color="0.5", linewidth=0.8, linestyle=":")
        axis.set_xticks(grades, [f"{g}\nn = {_count(cases, g)}" for g in grades])
        axis.set_xlabel("Genant's grade (0 = intact)")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(title_of(record, "dots are reconstructions, lines medians"), fontsize=10)
    figure.savefig(path, dpi=110)


def _count(cases: Sequence[Row], grade: int) -> int:
    return sum(case["grade"] == grade and case["arm"] == MODES_ON for case in cases)


def draw_examples(
    path: pathlib.Path,
    examples: Sequence[tuple[str, Mapping[str, FractureAnswer]]],
    record: Row,
) -> None:
    """Draw mid-sagittal sections in the frame of the true vertebra, anterior on the left."""
    figure = Figure(figsize=(3.6 * len(examples), 3.9), layout="constrained")
    axes = figure.subplots(1, len(examples), squeeze=False)[0]
    for axis, (title, answers) in zip(axes, examples, strict=True):
        truth = next(iter(answers.values())).task.truth
        assert truth is not None
        surfaces = {"true": (truth.surface, "black", "-")} | {
            arm: (pipeline.estimated_surface(*answer), _COLOURS[arm], "-")
            for arm, answer in answers.items()
        }
        for name, (surface, colour, style) in surfaces.items():
            solid, origin = pipeline.vertebra_occupancy(surface, truth.pose)
            spacing = pipeline.OCCUPANCY_SPACING_MM
            middle = round(-origin[0] / spacing)
            y, z = (origin[i] + spacing * np.arange(solid.shape[i]) for i in (1, 2))
            section = solid[middle].astype(float).T
            axis.contour(y, z, section, levels=[0.5], colors=[colour], linestyles=[style])
            axis.plot([], [], color=colour, linestyle=style, label=name)
        axis.set_aspect("equal")
        axis.invert_xaxis()
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("anterior [mm]")
    axes[0].legend(fontsize=7)
    figure.suptitle(title_of(record, "mid-sagittal sections"), fontsize=10)
    figure.savefig(path, dpi=110)
