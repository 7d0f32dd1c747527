"""Draw a sheet of radiographs with their ground truth, from the files of the data set."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image as PillowImage

_COLUMNS = 4
_SIDE_INCHES = 3.6


def write_sheet(path: pathlib.Path, files: Sequence[pathlib.Path], title: str) -> None:
    """Draw radiographs, given by their JSON files, on one sheet.

    Outlines are coloured and labelled by level. Landmarks are dots, hollow if not visible. Paths
    are lines from a ring at the entry to the target, dashed if infeasible.
    """
    rows = -(-len(files) // _COLUMNS)
    size = (_COLUMNS * _SIDE_INCHES, rows * (_SIDE_INCHES + 0.3) + 0.4)
    figure = Figure(size, dpi=100)
    figure.set_facecolor("#0b0d10")
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for axes, file in zip(grid.ravel(), files, strict=False):
        entry = json.loads(file.read_text(encoding="utf-8"))
        with PillowImage.open(file.with_name(entry["image"])) as image:
            _draw(axes, np.asarray(image, np.float32), entry)
    figure.text(0.01, 1.0 - 0.2 / size[1], title, color="#f4f4f5", fontsize=12, va="center")
    figure.subplots_adjust(0.005, 0.005, 0.995, 1.0 - 0.6 / size[1], 0.02, 0.12)
    figure.savefig(path, facecolor=figure.get_facecolor())


def _draw(axes: Any, image: np.ndarray, entry: dict[str, Any]) -> None:
    height, width = image.shape
    low, high = np.percentile(image, [1.0, 99.7])
    axes.imshow(
        image, cmap="gray", vmin=low, vmax=max(high, low + 1.0), extent=(0, width, height, 0)
    )
    colours = matplotlib.colormaps["hsv"](np.linspace(0.0, 0.9, 7))
    for number, vertebra in enumerate(entry["vertebrae"]):
        _draw_vertebra(axes, vertebra, colours[number % len(colours)])
    axes.set(xlim=(0, width), ylim=(height, 0))
    facts = [entry["subject"], f"view {entry['view']}", entry["name"], *entry["variants"]]
    axes.set_title(", ".join(facts), color="#d4d4d8", fontsize=8, pad=3)


def _draw_vertebra(axes: Any, vertebra: dict[str, Any], colour: Any) -> None:
    for outline in vertebra["contours"]:
        axes.plot(*np.transpose(outline), color=colour, linewidth=0.8)
    if vertebra["contours"]:
        middle = np.mean(vertebra["contours"][0], axis=0)
        axes.text(*middle, vertebra["level"], color=colour, fontsize=7, clip_on=True)
    for landmark in (vertebra["landmarks"] or {}).values():
        face = colour if landmark["visible"] else "none"
        axes.plot(*landmark["px"], "o", markersize=2.5, color=colour, markerfacecolor=face)
    for path in (vertebra["paths"] or {}).values():
        ends = np.array([path["entry_px"], path["target_px"]])
        style = "-" if path["feasible"] else (0, (2, 1.5))
        axes.plot(*ends.T, color="white", linewidth=1.0, linestyle=style)
        axes.plot(*ends[0], "o", markersize=4.0, color="white", markerfacecolor="none")
