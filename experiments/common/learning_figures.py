"""Draw figures of trained networks, for the trainings and their evaluation."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dartjax.training import IsolationExample, Trained

_MOST_MM = 60.0  # of bone, on the gray scale


def draw_isolation(path: pathlib.Path, examples: Sequence[IsolationExample]) -> None:
    """Draw a row per crop.

    The columns are the radiograph with the mask outline, the initial estimate, the prediction, the
    ground truth, the error, and the expected error.
    """
    figure = Figure(figsize=(13.2, 2.35 * len(examples)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(examples), 6, squeeze=False)
    for row, (title, image, hint, found, truth) in zip(axes, examples, strict=True):
        error = np.asarray(found.thickness) - np.asarray(truth.thickness)
        panels = [
            (image, "gray", None, "radiograph"),
            (hint.thickness, "gray", (0.0, _MOST_MM), "initial estimate"),
            (found.thickness, "gray", (0.0, _MOST_MM), "isolated"),
            (truth.thickness, "gray", (0.0, _MOST_MM), "ground truth"),
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


def draw_predictions(path: pathlib.Path, predicted: np.ndarray, true: np.ndarray) -> None:
    """Draw predicted against true mean surface distance of wrong fits, mm."""
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    most = 1.05 * float(max(predicted.max(), true.max()))
    axis.plot([0, most], [0, most], color="0.7", linewidth=0.8)
    axis.scatter(true, predicted, s=9, alpha=0.6)
    axis.set(xlabel="true MASD of a wrong fit [mm]", ylabel="predicted [mm]", xlim=(0, most))
    axis.set(ylim=(0, most), title="two views, held-out subjects")
    figure.savefig(path, dpi=130)


def draw_curves(path: pathlib.Path, trained: Trained, title: str) -> None:
    """Draw the training loss and the validation measures against the step."""
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([row["step"] for row in trained.curve], [row["loss"] for row in trained.curve])
    left.set(xlabel="step", ylabel="training loss", title=title)
    names = [key for key in trained.validations[0] if key != "step"]
    for name in names:
        values = np.array([row[name] for row in trained.validations])
        right.plot([row["step"] for row in trained.validations], values, label=name)
    right.axvline(trained.step, color="0.7", linewidth=0.8)
    right.set(xlabel="step", title="held-out subjects")
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
