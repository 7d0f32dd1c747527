"""Draw radiographs with contours, as PNG bytes.

Pixel convention of the package: pixel centres at +0.5, u right, v down, so an image of
width W spans u in [0, W].
"""

import io
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.lines import Line2D

# One meaning per colour in every figure and in the 3D viewer.
BEFORE = "#f59e0b"  # amber
AFTER = "#22c55e"  # green
TRUTH = "#38d3f8"  # cyan

Polyline = Float[np.ndarray, "n 2"]
HostImage = Float[np.ndarray, "h w"] | Float[Array, "h w"]
HostMask = Bool[np.ndarray, "h w"] | Bool[Array, "h w"] | HostImage


class Contour(NamedTuple):
    """Outlines with one colour and one label in the legend.

    `polylines` are (n, 2) arrays of pixels (u, v). Several contours (one per vertebra) may have the
    same label; the legend shows it once.
    """

    polylines: Sequence[Polyline]
    colour: str
    label: str
    dashed: bool = False


def radiograph_figure(
    image: HostImage,
    contours: Sequence[Contour] = (),
    title: str = "",
    *,
    bone: Literal["bright", "dark"] = "bright",
    width_px: int = 900,
) -> bytes:
    """Draw a line-integral image in grey with thin contours, as a PNG.

    The grey scale covers the 1st to the 99.7th percentile of `image` (h, w). `bone` chooses
    whether bone is bright or dark; the figure states it. Without contours there is no legend.
    Values that are not finite are shown as 0.
    """
    pixels = np.nan_to_num(np.asarray(image, np.float32), posinf=0.0, neginf=0.0)
    height, width = pixels.shape
    inches = width_px / 100.0
    caption = 0.5 if title else 0.0
    figure = MatplotlibFigure((inches, inches * height / width + caption), dpi=100)
    figure.set_facecolor("#0b0d10")
    bottom_to_top = 1.0 - caption / figure.get_figheight()
    axes = figure.add_axes((0.0, 0.0, 1.0, bottom_to_top))
    axes.set_axis_off()
    low, high = np.percentile(pixels, [1.0, 99.7])
    axes.imshow(
        pixels,
        cmap="gray" if bone == "bright" else "gray_r",
        vmin=low,
        vmax=max(high, low + 1e-6),
        extent=(0, width, height, 0),
        interpolation="bilinear",
    )
    for contour in contours:
        _draw(axes, contour)
    axes.set(xlim=(0, width), ylim=(height, 0))  # an outline may leave the image
    _legend(axes, contours)
    # "Bone bright" is written where readers look for the side marker.
    _note(axes, f"bone {bone}")
    if title:
        figure.text(0.015, 1.0 - 0.25 / figure.get_figheight(), title, **_TITLE_STYLE)
    return png_of(figure)


_TITLE_STYLE = {"color": "#f4f4f5", "fontsize": 13, "va": "center"}
_LINE_STYLE = {"linewidth": 1.3, "solid_joinstyle": "round"}


def _draw(axes, contour: Contour) -> None:
    style = {"linestyle": (0, (4, 2.5)) if contour.dashed else "solid", **_LINE_STYLE}
    for line in contour.polylines:
        axes.plot(line[:, 0], line[:, 1], color=contour.colour, **style)


def _legend(axes, contours: Sequence[Contour]) -> None:
    styles = {c.label: (c.dashed, c.colour) for c in contours if c.polylines}
    if not styles:
        return
    handles = [
        Line2D([], [], linestyle="--" if dashed else "-", color=colour, linewidth=2.0, label=label)
        for label, (dashed, colour) in styles.items()
    ]
    axes.legend(
        handles=handles,
        loc="upper right",
        fontsize=10,
        facecolor="#0b0d10",
        edgecolor="none",
        labelcolor="#f4f4f5",
        framealpha=0.75,
    )


def _note(axes, text: str) -> None:
    axes.text(0.985, 0.015, text, transform=axes.transAxes, ha="right", color="#a1a1aa", fontsize=9)


def png_of(figure: MatplotlibFigure) -> bytes:
    """Render a matplotlib figure to PNG bytes."""
    # The Agg canvas is named here, so that the global matplotlib backend is not changed.
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=figure.get_facecolor())
    return buffer.getvalue()
