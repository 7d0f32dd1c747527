"""Pictures of what isolation makes of a radiograph."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dartjax.training import IsolationExample

_MOST_MM = 60.0  # of bone, on the gray scale


def draw(path: pathlib.Path, examples: Sequence[IsolationExample]) -> None:
    """A row per crop: radiograph with the mask's outline, guess, prediction, truth, the error, and
    how large the network expects it to be."""
    figure = Figure(figsize=(13.2, 2.35 * len(examples)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(examples), 6, squeeze=False)
    for row, (title, image, hint, found, truth) in zip(axes, examples, strict=True):
        error = np.asarray(found.thickness) - np.asarray(truth.thickness)
        panels = [
            (image, "gray", None, "radiograph"),
            (hint.thickness, "gray", (0.0, _MOST_MM), "guess"),
            (found.thickness, "gray", (0.0, _MOST_MM), "isolated"),
            (truth.thickness, "gray", (0.0, _MOST_MM), "truth"),
            (error, "RdBu_r", (-25.0, 25.0), "error, ±25 mm"),
            (np.exp(found.log_error), "magma", (0.0, 25.0), "expected error, 0-25 mm"),
        ]
        for axis, (shown, colours, limits, label) in zip(row, panels, strict=True):
            low, high = limits or (None, None)
            axis.imshow(np.asarray(shown), cmap=colours, vmin=low, vmax=high)
            axis.set(xticks=[], yticks=[])
            axis.set_title(label, fontsize=8)
        if np.asarray(hint.mask).any():
            row[0].contour(np.asarray(hint.mask), [0.5], colors="tab:orange", linewidths=0.8)
        row[0].set_ylabel(title, fontsize=8)
    figure.savefig(path, dpi=130)
