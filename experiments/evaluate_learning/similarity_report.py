"""Pictures of what the learned similarity says."""

import pathlib

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_predictions(path: pathlib.Path, predicted: np.ndarray, true: np.ndarray) -> None:
    """Predicted against true mean surface distance of wrong fits, mm."""
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    most = 1.05 * float(max(predicted.max(), true.max()))
    axis.plot([0, most], [0, most], color="0.7", linewidth=0.8)
    axis.scatter(true, predicted, s=9, alpha=0.6)
    axis.set(xlabel="true MASD of a wrong fit [mm]", ylabel="predicted [mm]", xlim=(0, most))
    axis.set(ylim=(0, most), title="two views, subjects left out")
    figure.savefig(path, dpi=130)
