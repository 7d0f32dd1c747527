"""Statistics, tables and figures of the comparison of crops."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure

from dartjax import training
from dartjax.anatomy import REGIONS

_NAMES = ("mean", "spread", "entropy", *(f"gradient {a:g}-{b:g} mm" for a, b in training.BANDS_MM))
_COLUMNS = 8


class Measured(NamedTuple):
    """Statistics and features of the crops of a group, one row per image."""

    subject: np.ndarray
    region: np.ndarray
    values: Float[np.ndarray, "n statistic"]  # columns `_NAMES`
    features: Float[np.ndarray, "n feature"]


def measure(crops: training.Crops, pixel_mm: float) -> Measured:
    """Measure all crops."""
    images = np.asarray(crops.images, np.float32)
    views = images.shape[1]
    images = images.reshape(-1, *images.shape[2:])
    found = training.crop_statistics(images, pixel_mm)
    columns = [found.mean, found.spread, found.entropy, *found.gradient.T]
    return Measured(
        np.repeat(crops.subject, views),
        np.repeat(training.regions_of(crops), views),
        np.stack(columns, axis=1),
        training.crop_features(images, pixel_mm),
    )


def compare(real: Measured, synthetic: Measured, cohort: str) -> list[dict[str, Any]]:
    """Compare each statistic by region: the median of the real crops lies inside the central 90 %
    of the synthetic ones, or not."""
    rows = []
    for region in REGIONS:
        mine, others = (
            real.values[real.region == region],
            synthetic.values[synthetic.region == region],
        )
        if not len(mine) or not len(others):
            continue
        for i, name in enumerate(_NAMES):
            low, middle, high = np.quantile(others[:, i], [0.05, 0.5, 0.95])
            median = float(np.median(mine[:, i]))
            rows.append(
                {
                    "cohort": cohort,
                    "region": region,
                    "statistic": name,
                    "real": median,
                    "synthetic_05": float(low),
                    "synthetic": float(middle),
                    "synthetic_95": float(high),
                    "inside": bool(low <= median <= high),
                    "real_crops_inside": float(np.mean((mine[:, i] >= low) & (mine[:, i] <= high))),
                }
            )
    return rows


def labelled(
    real: Measured, synthetic: Measured
) -> tuple[Float[np.ndarray, "n feature"], Bool[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Combine two groups: features, whether real, number of the subject."""
    names = np.concatenate([real.subject, synthetic.subject])
    is_real = np.arange(len(names)) < len(real.subject)
    _, subject = np.unique(names, return_inverse=True)
    return np.concatenate([real.features, synthetic.features]), is_real, subject


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


def draw_statistics(path: pathlib.Path, measured: Mapping[str, Measured]) -> None:
    """Draw the distribution of each statistic by region and group."""
    figure = Figure((3.2 * len(_NAMES), 3.6), dpi=70)
    for i, (axes, name) in enumerate(zip(figure.subplots(1, len(_NAMES)), _NAMES, strict=True)):
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
