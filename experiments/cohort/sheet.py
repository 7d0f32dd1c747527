"""Draw slices of many CTs along the spine, with masks and centroids (`sheet.png`)."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from scipy import ndimage

from dartjax import data

TILES_PER_PAGE = 20
COLUMNS = 5
WINDOW_HU = (-250.0, 950.0)
MAX_PIXELS = 320  # along the longer side of a slice
COMPLETE, REJECTED, CENTROID = "#38d3f8", "#f59e0b", "#e11d48"


class Slice(NamedTuple):
    """CT sampled on a curved surface along the spine; columns along a world axis, rows along z."""

    gray: UInt8[np.ndarray, "h w"]
    labels: UInt8[np.ndarray, "h w"]
    extent: tuple[float, float, float, float]  # mm: left, right, bottom, top
    sides: tuple[str, str]  # at the left and right edge


class Tile(NamedTuple):
    """Scan on the page: its slices, complete levels and centroids."""

    title: str
    sagittal: Slice
    coronal: Slice
    complete: tuple[str, ...]
    centroids: Mapping[str, Float[np.ndarray, "3"]]


def tile_of(
    title: str,
    scan: data.Scan,
    complete: tuple[str, ...],
    centroids: Mapping[str, Float[np.ndarray, "3"]],
) -> Tile:
    """Make two slices through the centroids of a scan, in world axes and mm.

    The first is seen from the patient's left, the second from the front with the patient's right on
    the left.
    """
    sagittal = _slice(scan, centroids, across=1, through=0, sides=("A", "P"))
    coronal = _slice(scan, centroids, across=0, through=1, sides=("R", "L"))
    return Tile(title, sagittal, coronal, complete, centroids)


def write_sheets(folder: pathlib.Path, tiles: Sequence[Tile], title: str) -> None:
    """Write sheet.png and, if one page is not enough, sheet_2.png and so on."""
    pages = range(0, len(tiles), TILES_PER_PAGE)
    for number, start in enumerate(pages, 1):
        name = "sheet.png" if number == 1 else f"sheet_{number}.png"
        page = f"{title}, page {number} of {len(pages)}" if len(pages) > 1 else title
        shown = tiles[start : start + TILES_PER_PAGE]
        figure = _page(shown, page)
        figure.savefig(folder / name, facecolor=figure.get_facecolor())


def _slice(
    scan: data.Scan,
    centroids: Mapping[str, Float[np.ndarray, "3"]],
    *,
    across: int,
    through: int,
    sides: tuple[str, str],
) -> Slice:
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in scan.hu.shape])).reshape(3, -1)
    world = scan.affine[:3, :3] @ corners + scan.affine[:3, 3:]
    low, high = world.min(1), world.max(1)
    step = max((high - low)[[across, 2]].max() / MAX_PIXELS, 0.5)
    # The first column is the one with the largest coordinate: anterior, and the patient's right.
    columns = np.arange(high[across] - 0.5 * step, low[across], -step)
    heights = np.arange(high[2] - 0.5 * step, low[2], -step)
    points = np.empty((len(heights), len(columns), 3))
    points[..., across] = columns[None, :]
    points[..., 2] = heights[:, None]
    points[..., through] = _spine_at(heights, centroids, through, world.mean(1))[:, None]
    voxel_from_world = np.linalg.inv(scan.affine)
    voxels = points @ voxel_from_world[:3, :3].T + voxel_from_world[:3, 3]
    where = np.moveaxis(voxels, -1, 0)
    hu = ndimage.map_coordinates(scan.hu, where, order=1, cval=-1024, output=np.float32)
    labels = ndimage.map_coordinates(scan.labels, where, order=0, cval=0)
    gray = np.clip((hu - WINDOW_HU[0]) / (WINDOW_HU[1] - WINDOW_HU[0]), 0.0, 1.0) * 255.0
    extent = (
        columns[0] + step / 2,
        columns[-1] - step / 2,
        heights[-1] - step / 2,
        heights[0] + step / 2,
    )
    return Slice(gray.astype(np.uint8), labels, extent, sides)


def _spine_at(
    heights: Float[np.ndarray, " n"],
    centroids: Mapping[str, Float[np.ndarray, "3"]],
    axis: int,
    middle: Float[np.ndarray, "3"],
) -> Float[np.ndarray, " n"]:
    """Interpolate a coordinate of the centroids at given heights, constant beyond the ends."""
    if not centroids:
        return np.full_like(heights, middle[axis])
    points = np.array(sorted(centroids.values(), key=lambda point: point[2]))
    return np.interp(heights, points[:, 2], points[:, axis])


def _page(tiles: Sequence[Tile], title: str) -> Figure:
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    figure = Figure((4.4 * columns, 3.6 * rows + 0.4), dpi=80)
    figure.set_facecolor("#0b0d10")
    grid = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        for offset, (part, axis) in enumerate(((tile.sagittal, 1), (tile.coronal, 0))):
            _draw(grid[row, 2 * column + offset], tile, part, axis)
        grid[row, 2 * column].set_title(tile.title, color="#f4f4f5", fontsize=8, loc="left")
    height = figure.get_figheight()
    note = "cyan: complete, amber: rejected, red: centroids"
    heading = f"{title}   ({note})"
    figure.text(0.01, 1.0 - 0.2 / height, heading, color="#f4f4f5", fontsize=11, va="center")
    figure.subplots_adjust(0.005, 0.005, 0.995, 1.0 - 0.65 / height, 0.03, 0.12)
    return figure


def _draw(axes, tile: Tile, part: Slice, axis: int) -> None:
    axes.imshow(part.gray, cmap="gray", vmin=0, vmax=255, extent=part.extent, aspect="equal")
    complete = [data.label_of(level) for level in tile.complete]
    groups = ((np.isin(part.labels, complete), COMPLETE), (part.labels > 0, REJECTED))
    for labels, colour in groups:
        # One contour per vertebra, so that neighbours that touch stay separate.
        for label in np.unique(part.labels[labels]):
            if colour == REJECTED and label in complete:
                continue
            inside = (part.labels == label).astype(float)
            axes.contour(
                inside,
                [0.5],
                colors=[colour],
                linewidths=0.8,
                extent=part.extent,
                origin="upper",
            )
    for level, point in tile.centroids.items():
        axes.plot(point[axis], point[2], ".", color=CENTROID, markersize=3)
        axes.annotate(
            level,
            (point[axis], point[2]),
            xytext=(4, 0),
            textcoords="offset points",
            color="#f4f4f5",
            fontsize=5,
            va="center",
        )
    axes.set(xlim=part.extent[:2], ylim=part.extent[2:])
    for x, side in zip((0.02, 0.98), part.sides, strict=True):
        axes.text(
            x,
            0.02,
            side,
            transform=axes.transAxes,
            color="#f4f4f5",
            fontsize=8,
            ha="left" if x < 0.5 else "right",
        )
