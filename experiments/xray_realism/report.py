"""Figures and tables of `xray_realism`."""

import dataclasses
import importlib
import importlib.util
import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float

from dartjax.render import linear_attenuation, physics_tables

# Mass attenuation, cm^2/g, printed by NIST (NISTIR 5632): used where xraydb is not installed.
_NIST = {
    "water": {40: 0.2683, 50: 0.2269, 60: 0.2059, 80: 0.1837, 100: 0.1707},
    "cortical_bone": {40: 0.6655, 50: 0.4242, 60: 0.3148, 80: 0.2229, 100: 0.1855},
}
_DENSITY = {"water": 1.0, "cortical_bone": 1.92}
_FORMULA = {
    "water": {"H": 0.111898, "O": 0.888102},
    "cortical_bone": {"H": 0.034, "C": 0.155, "N": 0.042, "O": 0.435, "Na": 0.001, "Mg": 0.002}
    | {"P": 0.103, "S": 0.003, "Ca": 0.225},
}


@dataclasses.dataclass(frozen=True)
class Shot:
    """One radiograph; `other` differs in its noise alone, None where there is no noise."""

    view: str
    name: str
    image: Float[np.ndarray, "h w"]
    other: Float[np.ndarray, "h w"] | None
    pixel_mm: float

    @property
    def noise(self) -> Float[np.ndarray, "n n"]:
        """Noise of the middle half, from the difference of the two, free of anatomy."""
        assert self.other is not None
        height, width = self.image.shape
        middle = np.s_[height // 4 : -(height // 4), width // 4 : -(width // 4)]
        return (self.image[middle] - self.other[middle]) / np.sqrt(2.0)

    @property
    def noise_std(self) -> float:
        """Standard deviation of -log(I / I0) in the middle."""
        return float(self.noise.std())


def draw_radiographs(path: pathlib.Path, shots: list[Shot], watermark: str) -> None:
    """All radiographs, one row per view, each in its own window (1st to 99.7th percentile)."""
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
    # Behind shutters nearly nothing arrives: the field alone sets the window.
    height, width = shot.image.shape
    field = shot.image[height // 5 : -(height // 5), width // 5 : -(width // 5)]
    low, high = np.percentile(field if "collimated" in shot.name else shot.image, [1.0, 99.7])
    return float(low), float(high)


def draw_statistics(path: pathlib.Path, shots: list[Shot], watermark: str) -> dict[str, float]:
    """Histograms of the first view and noise power spectra; returns their numbers."""
    first = [shot for shot in shots if shot.view == shots[0].view and "tools" not in shot.name]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5))
    for shot in first:
        counts, edges = np.histogram(shot.image, 120, range=(0.0, 8.0), density=True)
        left.plot(0.5 * (edges[1:] + edges[:-1]), counts, label=shot.name)
    left.set(xlabel="-log(I / I0)", ylabel="density", title=f"histogram, {shots[0].view}")
    left.legend()
    summary = {}
    for shot in first:
        if shot.other is None:
            continue
        frequency, power = noise_power(shot.noise, shot.pixel_mm)
        right.loglog(frequency, power, label=f"{shot.name}: std {shot.noise_std:.3f}")
        name = shot.name.replace(" ", "_")
        summary[f"noise_std_{name}"] = shot.noise_std
        # 1 is white; blur and scatter make coarse noise weigh more than fine noise.
        summary[f"nps_fall_{name}"] = float(power[1:5].mean() / power[-8:].mean())
    right.set(xlabel="1 / mm on the detector", ylabel="noise power, mm^2", title="noise power")
    right.legend()
    figure.text(0.005, 0.005, watermark, fontsize=9)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return summary


def noise_power(
    noise: Float[np.ndarray, "h w"], pixel_mm: float
) -> tuple[Float[np.ndarray, " band"], Float[np.ndarray, " band"]]:
    """Radial noise power spectrum |DFT|^2 dx dy / (N M) in mm^2, up to the Nyquist frequency."""
    side = min(noise.shape)
    square = noise[:side, :side] - noise[:side, :side].mean()
    power = np.abs(np.fft.fft2(square)) ** 2 * pixel_mm**2 / side**2
    axis = np.fft.fftfreq(side, pixel_mm)
    radius = np.hypot(axis[:, None], axis[None])
    edges = np.linspace(0.0, 0.5 / pixel_mm, side // 4 + 1)
    band = np.digitize(radius.ravel(), edges) - 1
    kept = band < len(edges) - 1
    sums = np.bincount(band[kept], power.ravel()[kept], len(edges) - 1)
    counts = np.bincount(band[kept], minlength=len(edges) - 1)
    return 0.5 * (edges[1:] + edges[:-1]), sums / np.maximum(counts, 1)


def attenuation_table() -> list[dict[str, Any]]:
    """Shipped attenuation of water and bone, cm^2/g, beside the package's or NIST's."""
    rows = []
    for material, printed in _NIST.items():
        for energy, nist in printed.items():
            per_mm = float(linear_attenuation(material, np.array([float(energy)]))[0])
            shipped = 10.0 * per_mm / _DENSITY[material]
            source, reference = ("xraydb", _xraydb(material, energy))
            if reference is None:
                source, reference = "NIST, printed", nist
            rows.append(
                {
                    "material": material,
                    "energy_kev": energy,
                    "shipped_cm2_per_g": shipped,
                    "reference_cm2_per_g": reference,
                    "nist_cm2_per_g": nist,
                    "reference": source,
                    "difference_percent": 100.0 * (shipped / reference - 1.0),
                }
            )
    return rows


def table_text(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    lines = [
        f"Mass attenuation in cm^2/g ({len(physics_tables()['materials'])} materials are shipped)",
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


def _xraydb(material: str, energy: int) -> float | None:
    if importlib.util.find_spec("xraydb") is None:
        return None
    xraydb = importlib.import_module("xraydb")
    parts = _FORMULA[material]
    total = sum(share * xraydb.mu_elam(name, 1e3 * energy) for name, share in parts.items())
    return float(total / sum(parts.values()))
