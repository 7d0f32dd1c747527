"""Fit the scatter kernel of the X-ray simulator to a Monte Carlo of photons in water.

    python -m experiments.fit_xray_scatter --out=FOLDER

Pencil beams of a tube spectrum pass through slabs of water; where scattered photons meet the
detector gives, per thickness, the scatter-to-primary ratio of a wide field and the two Gaussians
of the kernel (`dartjax.render.xray_settings`: scatter_to_primary, scatter_widths_mm,
scatter_shares). Compton scatter is that of free electrons (Klein and Nishina); coherent scatter
has momentum transfers spread about water's peak at 1.6 / nm. About a minute.
"""

import pathlib

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from jaxtyping import Float
from scipy import optimize

from dartjax import cli
from dartjax.data import DataError
from dartjax.render import linear_attenuation, tube_spectrum

_KVP = flags.DEFINE_float("kvp", 80.0, "Tube voltage.")
_THICKNESSES = flags.DEFINE_list("thicknesses_mm", ["100", "150", "200", "250", "300"], "Slabs.")
_GAP = flags.DEFINE_float("gap_mm", 320.0, "From the slab's exit to the detector.")
_GRID = flags.DEFINE_float("grid_ratio", 8.0, "Height / gap of the anti-scatter grid; 0 = none.")
_PHOTONS = flags.DEFINE_integer("num_photons", 3_000_000, "Photons per slab.", lower_bound=1000)

_REST_KEV = 510.999
_WATER_PEAK_PER_NM = 1.6  # sin(theta / 2) / wavelength at which water scatters most
_HC_KEV_NM = 1.239842
_MAX_INTERACTIONS = 25
_CSI_G_PER_CM2, _CSI_DENSITY = 0.2, 4.51
_RADII_MM = np.concatenate([np.arange(0.0, 300.0, 5.0), np.arange(300.0, 1001.0, 50.0)])
_GROWTH = ("log_transmission", "scatter_to_primary")
Photons = dict[str, Float[np.ndarray, "..."]]


def main(ctx: cli.RunContext) -> None:
    """Trace, fit, draw."""
    rng = np.random.default_rng(ctx.seed)
    try:
        thicknesses = [float(text) for text in _THICKNESSES.value]
    except ValueError as error:
        raise DataError(f"--thicknesses_mm={_THICKNESSES.value}: give numbers") from error
    cases, profiles = [], []
    with cli.progress("slabs", len(thicknesses)) as step:
        for thickness in thicknesses:
            spread, ratio, depth = pencil_beam(rng, thickness)
            widths, shares = fit_gaussians(spread)
            profiles.append((thickness, spread, widths, shares))
            cases.append(
                {
                    "thickness_mm": thickness,
                    "scatter_to_primary": ratio,
                    "log_transmission": depth,
                    "ratio_per_log": ratio / depth,
                    "widths_mm": widths.tolist(),
                    "shares": shares.tolist(),
                }
            )
            step(f"{thickness:g} mm: scatter / primary {ratio:.2f}")
    draw(ctx.out / "kernel.png", profiles)
    record = ctx.record(
        dataset="Monte Carlo of water slabs",
        dataset_kind="synthetic",
        subjects=[],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    summary = {f"ratio_{case['thickness_mm']:g}_mm": case["scatter_to_primary"] for case in cases}
    ctx.save_metrics(record, summary | {"exponent": exponent(cases)}, cases)


def exponent(cases: list[dict]) -> float | None:
    """Power of -log transmission with which scatter / primary grows, None for one slab."""
    if len(cases) < 2:
        return None
    depth, ratio = (np.log([case[name] for case in cases]) for name in _GROWTH)
    return float(np.polyfit(depth, ratio, 1)[0])


def pencil_beam(
    rng: np.random.Generator, thickness: float
) -> tuple[Float[np.ndarray, " ring"], float, float]:
    """Share of the scattered signal in every ring of `_RADII_MM`, scatter / primary of a wide
    field, and -log of the transmitted signal."""
    photons = _emit(rng, _PHOTONS.value)
    open_beam = _detected(photons["energy"], np.ones(_PHOTONS.value)).sum()
    primary, scattered = 0.0, np.zeros(len(_RADII_MM) - 1)
    for interaction in range(_MAX_INTERACTIONS):
        leaving = _fly(rng, photons, thickness)
        signal, radius = _arrive(leaving, thickness)
        if interaction == 0:
            primary = signal.sum()
        else:
            scattered += np.histogram(radius, _RADII_MM, weights=signal)[0]
        if not len(photons["energy"]):
            break
        _interact(rng, photons)
    total = scattered.sum()
    return scattered / total, float(total / primary), float(-np.log(primary / open_beam))


def fit_gaussians(
    shares: Float[np.ndarray, " ring"],
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Widths (mm) and shares of two Gaussians with the same cumulative distribution by radius."""

    def cumulative(x: np.ndarray) -> np.ndarray:
        widths, first = np.exp(x[:2]), 1.0 / (1.0 + np.exp(-x[2]))
        inside = 1.0 - np.exp(-0.5 * (_RADII_MM[1:, None] / widths[None]) ** 2)
        return inside @ np.array([first, 1.0 - first])

    target = np.cumsum(shares)
    fit = optimize.least_squares(
        lambda x: cumulative(x) - target, np.array([np.log(40.0), np.log(200.0), 0.0])
    )
    first = 1.0 / (1.0 + np.exp(-fit.x[2]))
    order = np.argsort(fit.x[:2])
    return np.exp(fit.x[:2])[order], np.array([first, 1.0 - first])[order]


def draw(path: pathlib.Path, profiles: list) -> None:
    """Scattered signal within a radius: Monte Carlo (dots) and fit (lines)."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for number, (thickness, spread, widths, shares) in enumerate(profiles):
        radius = _RADII_MM[1:]
        fitted = (1.0 - np.exp(-0.5 * (radius[:, None] / widths[None]) ** 2)) @ shares
        axis.plot(radius, np.cumsum(spread), ".", ms=3, color=f"C{number}")
        axis.plot(radius, fitted, lw=1, color=f"C{number}", label=f"{thickness:g} mm")
    axis.set(xlabel="radius on the detector, mm", ylabel="share of scatter within")
    axis.legend(title="water")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _emit(rng: np.random.Generator, count: int) -> Photons:
    spectrum = tube_spectrum(_KVP.value)
    energies = np.asarray(spectrum.energies_kev, np.float64)
    number = np.asarray(spectrum.weights, np.float64) / _detected(energies, np.ones(len(energies)))
    direction = np.zeros((count, 3))
    direction[:, 2] = 1.0
    energy = rng.choice(energies, count, p=number / number.sum())
    return {"energy": energy, "position": np.zeros((count, 3)), "direction": direction}


def _detected(energy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    thickness_mm = 10.0 * _CSI_G_PER_CM2 / _CSI_DENSITY
    return weight * energy * (1.0 - np.exp(-_mu("caesium_iodide", energy) * thickness_mm))


def _mu(material: str, energy: np.ndarray) -> np.ndarray:
    grid = np.arange(10.0, 151.0)
    return np.interp(energy, grid, np.asarray(linear_attenuation(material, grid), np.float64))


def _fly(rng: np.random.Generator, photons: Photons, thickness: float) -> Photons:
    """Move photons to their next interaction; those that leave forward are returned and all
    that leave are taken out."""
    distance = rng.exponential(size=len(photons["energy"])) / _mu("water", photons["energy"])
    end = photons["position"] + distance[:, None] * photons["direction"]
    forward, backward = end[:, 2] >= thickness, end[:, 2] < 0.0
    leaving = {name: value[forward] for name, value in photons.items()}
    photons["position"] = end
    for name in photons:
        photons[name] = photons[name][~(forward | backward)]
    return leaving


def _arrive(photons: Photons, thickness: float) -> tuple[np.ndarray, np.ndarray]:
    """Signal and distance from the beam on the detector of photons that leave forward."""
    slope = photons["direction"][:, :2] / photons["direction"][:, 2:]
    way = thickness + _GAP.value - photons["position"][:, 2]
    place = photons["position"][:, :2] + way[:, None] * slope
    passed = np.maximum(0.0, 1.0 - _GRID.value * np.abs(slope[:, 0]))  # lamellae along y
    return _detected(photons["energy"], passed), np.linalg.norm(place, axis=1)


def _interact(rng: np.random.Generator, photons: Photons) -> None:
    """Absorb, or scatter, each photon where it is."""
    energy = photons["energy"]
    coherent, incoherent = _shares(energy)
    draw = rng.uniform(size=len(energy))
    scattered = draw < coherent + incoherent
    is_coherent = (draw < coherent)[scattered]
    for name in photons:
        photons[name] = photons[name][scattered]
    energy = photons["energy"]
    transfer = rng.rayleigh(_WATER_PEAK_PER_NM, len(energy))
    half_sine = np.minimum(transfer * _HC_KEV_NM / energy, 1.0)
    cosine = np.where(is_coherent, 1.0 - 2.0 * half_sine**2, _compton_cosine(rng, energy))
    after = energy / (1.0 + energy / _REST_KEV * (1.0 - cosine))
    photons["energy"] = np.maximum(np.where(is_coherent, energy, after), 10.0)
    photons["direction"] = _turn(rng, photons["direction"], cosine)


def _shares(energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of coherent and incoherent scatter among interactions in water.

    The incoherent part is Klein-Nishina's for 10 electrons a molecule; of the rest, coherent
    scatter falls as E^-1.8 from 0.0194 cm^2/g at 50 keV (Elam et al.), the remainder is absorbed.
    """
    k = energy / _REST_KEV
    log = np.log1p(2.0 * k)
    first = (1.0 + k) / k**2 * (2.0 * (1.0 + k) / (1.0 + 2.0 * k) - log / k)
    per_electron = (
        2.0
        * np.pi
        * 0.0794079
        * (  # barn: r_e^2
            first + log / (2.0 * k) - (1.0 + 3.0 * k) / (1.0 + 2.0 * k) ** 2
        )
    )
    total = _mu("water", energy)
    incoherent = per_electron * 0.33428 / 10.0 / total  # electrons / (barn cm) of water, per mm
    coherent = 0.00194 * (energy / 50.0) ** -1.8 / total
    return np.minimum(coherent, 1.0 - incoherent), incoherent


def _compton_cosine(rng: np.random.Generator, energy: np.ndarray) -> np.ndarray:
    """Cosines of the Klein-Nishina distribution, by rejection from a uniform one."""
    cosine = np.empty(len(energy))
    left = np.arange(len(energy))
    while len(left):
        trial = rng.uniform(-1.0, 1.0, len(left))
        ratio = 1.0 / (1.0 + energy[left] / _REST_KEV * (1.0 - trial))
        density = ratio**2 * (ratio + 1.0 / ratio - 1.0 + trial**2) / 2.0
        kept = rng.uniform(size=len(left)) < density
        cosine[left[kept]] = trial[kept]
        left = left[~kept]
    return cosine


def _turn(rng: np.random.Generator, direction: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """Directions turned by the angle of `cosine` about a random azimuth."""
    azimuth = rng.uniform(0.0, 2.0 * np.pi, len(cosine))
    sine = np.sqrt(np.maximum(0.0, 1.0 - cosine**2))
    helper = np.where(np.abs(direction[:, :1]) < 0.7, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    side = np.cross(helper, direction)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(direction, side)
    across = np.cos(azimuth)[:, None] * side + np.sin(azimuth)[:, None] * up
    return cosine[:, None] * direction + sine[:, None] * across


if __name__ == "__main__":
    cli.run(main)
