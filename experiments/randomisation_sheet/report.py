"""Draw sheets of randomised radiographs."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from dartjax.image import silhouette_contours

_BACKGROUND, _INK, _MARK = "#0b0d10", "#f4f4f5", "#e11d48"
Tile = tuple[str, Float[Array, "h w"]]
Marks = tuple[Float[Array, "h w"], Float[Array, "n 2"]]


def write_sheet(
    path: pathlib.Path,
    tiles: Sequence[Tile],
    title: str,
    limits: tuple[float, float] | None,
    marks: Sequence[Marks] = (),
) -> None:
    """Draw titled images on one sheet.

    `marks` are a mask and landmarks per image. `limits` are the values shown as black and white, by
    default percentiles of each image.
    """
    columns = 7
    rows = -(-len(tiles) // columns)
    figure = Figure((2.1 * columns, 2.3 * rows + 0.4), dpi=80)
    figure.set_facecolor(_BACKGROUND)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for number, tile in enumerate(tiles):
        _draw_tile(grid[number], tile, limits)
        if marks:
            _draw_marks(grid[number], marks[number])
    height = figure.get_figheight()
    heading = f"SYNTHETIC ANATOMY: {title}"
    figure.text(0.01, 1.0 - 0.2 / height, heading, color=_INK, fontsize=11, va="center")
    figure.subplots_adjust(0.005, 0.005, 0.995, 1.0 - 0.6 / height, 0.04, 0.14)
    figure.savefig(path, facecolor=figure.get_facecolor())


def _draw_tile(axes: Any, tile: Tile, limits: tuple[float, float] | None) -> None:
    name, pixels = tile[0], np.asarray(tile[1])
    height, width = pixels.shape
    low, high = limits or tuple(np.percentile(pixels, [0.5, 99.5]))
    axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, extent=(0, width, height, 0))
    axes.set_title(name, color=_INK, fontsize=8)


def _draw_marks(axes: Any, marks: Marks) -> None:
    mask, landmarks = marks
    for line in silhouette_contours(np.asarray(mask)):
        axes.plot(line[:, 0], line[:, 1], color=_MARK, linewidth=0.8)
    axes.plot(landmarks[:, 0], landmarks[:, 1], ".", color=_MARK, markersize=3)
    axes.set(xlim=(0, mask.shape[1]), ylim=(mask.shape[0], 0))
