"""Statistics, tables and figures of the comparison of crops."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dartjax import training
from dartjax.anatomy import REGIONS

_COLUMNS = 8


def tables(rows: list[dict[str, Any]], scores: Mapping[str, training.RealismScore]) -> str:
    """Write the tables in Markdown."""
    lines = ["| cohort | region | statistic | real | synthetic (5 to 95 %) | real crops inside |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        spread = "{synthetic:.2f} ({synthetic_05:.2f} to {synthetic_95:.2f})".format(**row)
        mark = "" if row["inside"] else " outside"
        lines.append(
            f"| {row['cohort']} | {row['region']} | {row['statistic']} | {row['real']:.2f}{mark} | "
            f"{spread} | {100 * row['real_crops_inside']:.0f} % |"
        )
    lines += ["", "| cohort | accuracy | chance, 95 % | real crops | synthetic crops |"]
    lines.append("|---|---|---|---|---|")
    for name, s in scores.items():
        lines.append(
            f"| {name} | {s.accuracy:.2f} | {s.chance_low:.2f} to {s.chance_high:.2f} | "
            f"{s.n_real} | {s.n_synthetic} |"
        )
    return "\n".join(lines) + "\n"


def draw_sheet(
    path: pathlib.Path,
    real: training.Crops,
    synthetic: training.Crops,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Draw eight real and eight synthetic crops, shuffled, and return which is which."""
    tiles = []
    for kind, crops in (("real", real), ("synthetic", synthetic)):
        for i in rng.permutation(len(crops.level))[:_COLUMNS]:
            view = int(rng.integers(crops.images.shape[1]))
            tiles.append((kind, str(crops.subject[i]), np.asarray(crops.images[i, view], float)))
    order = rng.permutation(len(tiles))
    figure = Figure((2.0 * _COLUMNS, 4.5), dpi=80)
    key = []
    for number, (axes, place) in enumerate(
        zip(figure.subplots(2, _COLUMNS).ravel(), order, strict=True), start=1
    ):
        kind, subject, image = tiles[place]
        low, high = np.percentile(image, [0.5, 99.5])
        axes.imshow(image, cmap="gray", vmin=low, vmax=high)
        axes.set_title(str(number), fontsize=9)
        axes.set_axis_off()
        key.append({"number": number, "kind": kind, "subject": subject})
    figure.tight_layout()
    figure.savefig(path)
    return key


def draw_statistics(path: pathlib.Path, measured: Mapping[str, training.MeasuredCrops]) -> None:
    """Draw the distribution of each statistic by region and group."""
    figure = Figure((3.2 * len(training.STATISTICS), 3.6), dpi=70)
    for i, (axes, name) in enumerate(
        zip(figure.subplots(1, len(training.STATISTICS)), training.STATISTICS, strict=True)
    ):
        for k, (group, found) in enumerate(measured.items()):
            parts = [found.values[found.region == region, i] for region in REGIONS]
            places = np.arange(len(REGIONS)) + 0.25 * k
            kept = [(p, x) for p, x in zip(parts, places, strict=True) if len(p)]
            axes.boxplot(
                [p for p, _ in kept],
                positions=[x for _, x in kept],
                widths=0.2,
                whis=(5, 95),
                showfliers=False,
                patch_artist=True,
                boxprops={"facecolor": f"C{k}"},
                medianprops={"color": "black"},
                label=group,
            )
        axes.set_xticks(np.arange(len(REGIONS)) + 0.25, REGIONS, fontsize=7)
        axes.set_title(name, fontsize=9)
    figure.axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
