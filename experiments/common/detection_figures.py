"""Draw found vertebrae on radiographs."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dartjax.models import DETECTED_LEVELS, FoundVertebrae
from dartjax.pipeline import PictureOfView
from dartjax.training import DetectionTruth

_COLUMNS = 4
_TRUE, _FOUND = "tab:cyan", "tab:orange"


def draw_detections(
    path: pathlib.Path,
    images: np.ndarray,
    found: FoundVertebrae,
    truth: DetectionTruth,
    least_score: float,
) -> None:
    """Draw the boxes of the bodies with their levels, true and found, one panel per image."""
    rows = -(-len(images) // _COLUMNS)
    figure = Figure(figsize=(3.6 * _COLUMNS, 3.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).reshape(-1)
    for i, image in enumerate(images):
        own, true = (jax.tree.map(lambda leaf, i=i: leaf[i], tree) for tree in (found, truth))
        _draw(panels[i], image, own, true, least_score)
    for panel in panels:
        panel.set_axis_off()
    figure.suptitle("bodies: true (cyan) and found (orange)", fontsize=9)
    figure.savefig(path, dpi=110)


def _draw(
    panel: Axes,
    image: np.ndarray,
    found: FoundVertebrae,
    truth: DetectionTruth,
    least_score: float,
) -> None:
    panel.imshow(image[..., 0], cmap="gray", vmin=-0.2, vmax=1.2)
    for i in np.flatnonzero(np.asarray(truth.level) >= 0):
        name = DETECTED_LEVELS[int(truth.level[i])]
        _box(panel, np.asarray(truth.body_box[i]), _TRUE, name, "left")
    taken = np.asarray(found.valid) & (np.asarray(found.score) >= least_score)
    for i in np.flatnonzero(taken):
        name = DETECTED_LEVELS[int(np.argmax(found.log_level[i]))]
        label = f"{name} {float(found.score[i]):.2f}"
        _box(panel, np.asarray(found.body_box[i]), _FOUND, label, "right")


def _box(panel: Axes, box: np.ndarray, color: str, label: str, side: str) -> None:
    u0, v0, u1, v1 = box
    panel.plot([u0, u1, u1, u0, u0], [v0, v0, v1, v1, v0], color=color, linewidth=0.8)
    place = (u0 - 1, "right") if side == "left" else (u1 + 1, "left")
    panel.text(place[0], 0.5 * (v0 + v1), label, color=color, fontsize=5, ha=place[1], va="center")


def draw_kept(
    path: pathlib.Path, rows: Sequence[Mapping[str, Any]], total: int | None = None
) -> None:
    """Draw the median error of the landmarks that are kept as the largest predicted deviation
    falls, in frontal and lateral views. Rows have `lateral`, `error_mm` and `sigma_mm`; `total`
    counts the visible landmarks, found or not."""
    share = len(rows) / (total or len(rows))
    figure = Figure(figsize=(5.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for name, lateral in (("frontal views", False), ("lateral views", True)):
        own = sorted(
            (row for row in rows if row["lateral"] == lateral), key=lambda row: row["sigma_mm"]
        )
        counts = np.unique(np.linspace(1, len(own), 60).astype(int))
        errors = np.array([row["error_mm"] for row in own])
        kept = [float(np.median(errors[:count])) for count in counts]
        panel.plot(100.0 * share * counts / len(own), kept, label=name)
    panel.set_xlabel("landmarks kept, %")
    panel.set_ylabel("median error, mm")
    panel.set_ylim(bottom=0.0)
    panel.legend()
    figure.savefig(path, dpi=110)


def draw_views(path: pathlib.Path, views: Sequence[PictureOfView]) -> None:
    """Draw found and true bodies on radiographs, one panel each."""
    columns = min(len(views), 3)
    rows = -(-len(views) // columns)
    figure = Figure(figsize=(4.6 * columns, 4.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for panel, view in zip(panels, views, strict=False):
        low, high = np.percentile(view.image, [2.0, 99.0])
        panel.imshow(view.image, cmap="gray", vmin=low, vmax=high)
        names = view.levels or ("",) * len(view.boxes)
        for box, name in zip(view.boxes, names, strict=True):
            _box(panel, box, _TRUE, name, "left")
        for box, levels, score in zip(
            view.found.body_box, view.found.log_level, view.found.score, strict=True
        ):
            label = f"{DETECTED_LEVELS[int(np.argmax(levels))]} {score:.2f}"
            _box(panel, box, _FOUND, label, "right")
        panel.set_title(f"{view.name}: {view.score:.2f}", fontsize=8)
    for panel in panels:
        panel.set_axis_off()
    figure.suptitle("bodies: true (cyan) and found (orange)", fontsize=9)
    figure.savefig(path, dpi=110)
