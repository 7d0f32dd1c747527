"""Make the figures and tables of `xray_realism`."""

import dataclasses
import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float

from dartjax.render import (
    material_names,
    noise_of_pair,
    noise_power_ratio,
    noise_power_spectrum,
)


@dataclasses.dataclass(frozen=True)
class Shot:
    """Simulated radiograph; `other` differs only in its noise, None if there is no noise."""

    view: str
    name: str
    image: Float[np.ndarray, "h w"]
    other: Float[np.ndarray, "h w"] | None
    pixel_mm: float

    @property
    def noise(self) -> Float[np.ndarray, "n n"]:
        """Noise of the central half of the image, see `render.noise_of_pair`."""
        assert self.other is not None
        return noise_of_pair(self.image, self.other)

    @property
    def noise_std(self) -> float:
        """Standard deviation of -log(I / I0) in the central half."""
        return float(self.noise.std())


def draw_radiographs(path: pathlib.Path, shots: list[Shot], watermark: str) -> None:
    """Draw all radiographs, one row per view, each windowed from 1st to 99.7th percentile."""
    views = list(dict.fromkeys(shot.view for shot in shots))
    columns = len(shots) // len(views)
    figure, axes = plt.subplots(len(views), columns, figsize=(3.6 * columns, 3.9 * len(views)))
    for axis, shot in zip(np.atleast_2d(axes).ravel(), shots, strict=True):
        low, high = _window_of(shot)
        axis.imshow(shot.image, cmap="gray", vmin=low, vmax=high)
        axis.set_title(f"{shot.view} {shot.name}", fontsize=10)
        axis.axis("off")
    figure.text(0.005, 0.005, watermark, fontsize=9)
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _window_of(shot: Shot) -> tuple[float, float]:
    # Almost no signal arrives behind shutters, so only the open field sets the window.
    height, width = shot.image.shape
    field = shot.image[height // 5 : -(height // 5), width // 5 : -(width // 5)]
    low, high = np.percentile(field if "collimated" in shot.name else shot.image, [1.0, 99.7])
    return float(low), float(high)


def draw_statistics(path: pathlib.Path, shots: list[Shot], watermark: str) -> None:
    """Draw histograms and noise power spectra of the radiographs of one view."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5))
    for shot in shots:
        counts, edges = np.histogram(shot.image, 120, range=(0.0, 8.0), density=True)
        left.plot(0.5 * (edges[1:] + edges[:-1]), counts, label=shot.name)
        if shot.other is not None:
            label = f"{shot.name}: std {shot.noise_std:.3f}"
            right.loglog(*noise_power_spectrum(shot.noise, shot.pixel_mm), label=label)
    left.set(xlabel="-log(I / I0)", ylabel="density", title=f"histogram, {shots[0].view}")
    left.legend()
    right.set(xlabel="1 / mm on the detector", ylabel="noise power, mm^2", title="noise power")
    right.legend()
    figure.text(0.005, 0.005, watermark, fontsize=9)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def noise_summary(shots: list[Shot]) -> dict[str, float]:
    """Return the noise level and the fall of its power, for every technique with noise."""
    summary = {}
    for shot in shots:
        if shot.other is not None:
            _, power = noise_power_spectrum(shot.noise, shot.pixel_mm)
            name = shot.name.replace(" ", "_")
            summary[f"noise_std_{name}"] = shot.noise_std
            summary[f"nps_fall_{name}"] = noise_power_ratio(power)
    return summary


def table_text(rows: list[dict[str, Any]]) -> str:
    """Format the table of attenuation in Markdown."""
    lines = [
        f"Mass attenuation in cm^2/g ({len(material_names())} materials are shipped)",
        "",
        "| material | keV | shipped | reference | NIST | source | difference % |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = [row[f"{name}_cm2_per_g"] for name in ("shipped", "reference", "nist")]
        cells = [row["material"], str(row["energy_kev"]), *(f"{n:.4f}" for n in numbers)]
        cells += [row["reference"], f"{row['difference_percent']:+.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
