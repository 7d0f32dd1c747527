"""Heights of a vertebral body, and the tables and figures of the fracture study."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dartjax import mesh, pipeline, transforms
from dartjax.mesh import TriangleMesh
from dartjax.pipeline import Estimate, Task

OFF, ON = "fracture modes off", "fracture modes on"
_COLOURS = {OFF: "#64748b", ON: "#c2410c"}
_SPACING = 0.5  # mm
# Where a height is measured, as a share of the way from the middle of the body to its front.
_PLACES = {"anterior": 0.6, "middle": 0.0}
_PANELS = {
    "dice": "Dice",
    "masd_mm": "MASD [mm]",
    "anterior_height_error_mm": "anterior height, fitted - true [mm]",
    "middle_height_error_mm": "middle height, fitted - true [mm]",
}
Row = Mapping[str, Any]


class Answer(NamedTuple):
    """A task and what a fit made of it."""

    task: Task
    estimate: Estimate


def body_heights(surface: TriangleMesh, pose: transforms.SE3) -> dict[str, float]:
    """Height of the bone along z of the vertebra frame `pose` (T_world_vertebra), mm: the mean
    over columns within 4 mm of the midline, in front (0.6 of the way to the anterior wall) and
    in the middle of the body, each over 3 mm."""
    solid, origin = _in_frame(surface, pose)
    x, y = (origin[i] + _SPACING * np.arange(solid.shape[i]) for i in (0, 1))
    column = solid[np.abs(x) <= 4.0].sum(2).mean(0) * _SPACING  # by y
    front = y[np.flatnonzero(column > 4.0)[-1]]
    return {
        place: float(column[np.abs(y - share * front) <= 1.5].mean())
        for place, share in _PLACES.items()
    }


def _in_frame(surface: TriangleMesh, pose: transforms.SE3) -> tuple[np.ndarray, np.ndarray]:
    """Occupancy of a surface in a vertebra frame, and the centre of its first voxel."""
    local = transforms.apply(pose.inverse(), jnp.asarray(surface.vertices, jnp.float32))
    vertices = np.asarray(local, np.float64)
    origin = vertices.min(0) - 2.0 * _SPACING
    extent = np.ceil((vertices.max(0) - origin) / _SPACING).astype(int) + 3
    shape = (int(extent[0]), int(extent[1]), int(extent[2]))
    return mesh.voxelize(vertices, np.asarray(surface.faces), origin, shape, _SPACING), origin


def rows_of(cases: Sequence[Row]) -> list[dict[str, Any]]:
    """Per grade and arm: medians of Dice, MASD and the sizes of the height errors, and the mean
    of the signed ones."""
    rows = []
    for grade in sorted({case["grade"] for case in cases}):
        for arm in (OFF, ON):
            own = [case for case in cases if (case["grade"], case["arm"]) == (grade, arm)]
            row: dict[str, Any] = {"grade": grade, "arm": arm, "n": len(own)}
            row["Dice"] = _median([case["dice"] for case in own])
            row["MASD [mm]"] = _median([case["masd_mm"] for case in own])
            for place in _PLACES:
                error = [case[f"{place}_height_error_mm"] for case in own]
                row[f"{place} height error [mm]"] = _median(np.abs(error))
                row[f"{place} bias [mm]"] = float(np.mean(error))
            rows.append(row)
    return rows


def _median(values: Sequence[float] | np.ndarray) -> float:
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return float(np.median(finite)) if len(finite) else float("nan")


def draw(path: pathlib.Path, cases: Sequence[Row]) -> None:
    """Every case as a dot, medians by grade as lines."""
    figure = Figure(figsize=(14.0, 3.9), layout="constrained")
    grades = sorted({case["grade"] for case in cases})
    for axis, (key, name) in zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True):
        for shift, arm in ((-0.08, OFF), (0.08, ON)):
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
    figure.suptitle("SYNTHETIC ANATOMY - not VerSe: dots are vertebrae, lines medians", fontsize=10)
    figure.savefig(path, dpi=110)


def _count(cases: Sequence[Row], grade: int) -> int:
    return sum(case["grade"] == grade and case["arm"] == ON for case in cases)


def draw_examples(path: pathlib.Path, examples: Sequence[tuple[str, Mapping[str, Answer]]]) -> None:
    """Mid-sagittal sections in the true vertebra's frame, anterior on the left."""
    figure = Figure(figsize=(3.6 * len(examples), 3.9), layout="constrained")
    axes = figure.subplots(1, len(examples), squeeze=False)[0]
    for axis, (title, answers) in zip(axes, examples, strict=True):
        truth = next(iter(answers.values())).task.truth
        assert truth is not None
        surfaces = {"true": (truth.surface, "black", "-")} | {
            arm: (pipeline.surface(*answer), _COLOURS[arm], "-") for arm, answer in answers.items()
        }
        for name, (surface, colour, style) in surfaces.items():
            solid, origin = _in_frame(surface, truth.pose)
            middle = round(-origin[0] / _SPACING)
            y, z = (origin[i] + _SPACING * np.arange(solid.shape[i]) for i in (1, 2))
            section = solid[middle].astype(float).T
            axis.contour(y, z, section, levels=[0.5], colors=[colour], linestyles=[style])
            axis.plot([], [], color=colour, linestyle=style, label=name)
        axis.set_aspect("equal")
        axis.invert_xaxis()
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("anterior [mm]")
    axes[0].legend(fontsize=7)
    figure.suptitle("SYNTHETIC ANATOMY - not VerSe: mid-sagittal sections", fontsize=10)
    figure.savefig(path, dpi=110)
