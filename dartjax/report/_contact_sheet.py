"""Draw many surfaces on one page, each shaded from three sides, as PNG bytes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure as MatplotlibFigure

from dartjax.report._figures import TRUTH, png_of

_BONE = (0.87, 0.85, 0.78)
_LANDMARK = "#e11d48"  # rose
# (right, up, toward the viewer) as axes of the vertebra frame with sign.
_VIEWS = {
    "from behind": ((0, 1), (2, 1), (1, -1)),
    "from the right": ((1, 1), (2, 1), (0, 1)),
    "from above": ((0, 1), (1, 1), (2, 1)),
}
_LIGHT = np.array([0.25, 0.45, 0.86])  # in (right, up, toward the viewer)


class Tile(NamedTuple):
    """Surface in its vertebra frame (mm), with points and straight paths to draw on it."""

    title: str
    vertices: Float[np.ndarray, "vertex 3"]
    faces: Int[np.ndarray, "face 3"]
    points: Float[np.ndarray, "point 3"] = np.zeros((0, 3))
    paths: Float[np.ndarray, "path 2 3"] = np.zeros((0, 2, 3))
    colours: Float[np.ndarray, "face 3"] | None = None  # RGB in [0, 1]


def contact_sheet(tiles: Sequence[Sequence[Tile]], title: str = "") -> bytes:
    """Draw surfaces as a PNG: one column per tile, three views per row of tiles.

    The views are from behind (the patient's left on the left), from the right (anterior on the
    right) and from above (anterior up), all at the same scale. Paths and points are visible through
    the bone.
    """
    columns = max(len(row) for row in tiles)
    every = np.concatenate([tile.vertices for row in tiles for tile in row])
    reach = float(np.abs(every).max()) * 1.03
    # Wide enough for the title, however few the columns.
    width = max(2.3 * columns, 0.09 * len(title))
    figure = MatplotlibFigure((width, 2.0 * 3 * len(tiles) + 0.5), dpi=90)
    grid = figure.subplots(3 * len(tiles), columns, squeeze=False)
    for cell in grid.ravel():
        cell.set_axis_off()
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            for k, view in enumerate(_VIEWS):
                _draw(grid[3 * i + k, j], tile, view, reach)
            grid[3 * i, j].set_title(tile.title, fontsize=9)
    height = figure.get_figheight()
    figure.text(0.5, 1.0 - 0.2 / height, title, fontsize=12, ha="center", va="center")
    figure.subplots_adjust(0.0, 0.0, 1.0, 1.0 - 0.6 / height, 0.0, 0.05)
    return png_of(figure)


def _draw(axes, tile: Tile, view: str, reach: float) -> None:
    shown = _projected(tile.vertices, view)
    corners = shown[tile.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    visible = np.flatnonzero(normals[:, 2] > 0.0)
    # Painter's algorithm: draw far triangles first.
    order = visible[np.argsort(corners[visible, :, 2].mean(1))]
    shade = 0.35 + 0.65 * np.clip(normals @ _LIGHT, 0.0, 1.0)
    base = np.array(_BONE) if tile.colours is None else tile.colours
    colours = np.broadcast_to(base, normals.shape) * shade[:, None]
    axes.add_collection(
        PolyCollection(
            list(corners[order, :, :2]), facecolors=colours[order], edgecolors="face", lw=0.3
        )
    )
    for path in tile.paths:
        axes.plot(*_projected(path, view)[:, :2].T, color=TRUTH, linewidth=1.6)
    spots = _projected(tile.points, view)
    axes.plot(spots[:, 0], spots[:, 1], "o", color=_LANDMARK, markersize=2.6)
    middle = 0.5 * (shown.min(0) + shown.max(0))
    axes.set(xlim=middle[0] + np.array([-1, 1]) * reach * 0.85)
    axes.set(ylim=middle[1] + np.array([-1, 1]) * reach * 0.75, aspect="equal")


def _projected(points: Float[np.ndarray, "*n 3"], view: str) -> Float[np.ndarray, "*n 3"]:
    return np.stack([sign * points[..., axis] for axis, sign in _VIEWS[view]], axis=-1)
