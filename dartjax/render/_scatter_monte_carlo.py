"""Monte Carlo simulation of X-ray scatter in water, and the scatter kernel fitted to it.

Compton scatter is that of free electrons (Klein and Nishina). Momentum transfers of coherent
scatter are distributed about water's peak at 1.6 / nm. Host functions in NumPy.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize

from dartjax.render._spectrum import linear_attenuation, tube_spectrum

SCATTER_RADII_MM = np.concatenate([np.arange(0.0, 300.0, 5.0), np.arange(300.0, 1001.0, 50.0)])
_REST_KEV = 510.999
_ELECTRON_RADIUS_SQUARED_BARN = 0.0794079
_WATER_PEAK_PER_NM = 1.6  # sin(theta / 2) / wavelength at which water scatters most
_HC_KEV_NM = 1.239842
_MAX_INTERACTIONS = 25
_CSI_G_PER_CM2, _CSI_DENSITY = 0.2, 4.51
_Photons = dict[str, Float[np.ndarray, "..."]]


@dataclasses.dataclass(frozen=True)
class ScatterSetup:
    """Setup of the simulation: tube voltage, distance from slab to detector, anti-scatter grid."""

    kvp: float = 80.0
    gap_mm: float = 320.0  # from the slab's exit to the detector
    grid_ratio: float = 8.0  # height / gap of the anti-scatter grid; 0 = none
    num_photons: int = 3_000_000


class SlabScatter(NamedTuple):
    """Signal at the detector behind a slab of water."""

    shares: Float[np.ndarray, " ring"]  # of the scattered signal, between SCATTER_RADII_MM
    scatter_to_primary: float  # of a wide field
    log_transmission: float  # -log of the transmitted primary signal


class ScatterKernel(NamedTuple):
    """Scatter kernel of a pencil beam: two Gaussians, the narrow one first."""

    widths_mm: Float[np.ndarray, "2"]  # standard deviations on the detector
    shares: Float[np.ndarray, "2"]

    def share_within(self, radii_mm: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Compute the share of the scattered signal within each radius (mm) of the beam."""
        return _shares_within(radii_mm, self.widths_mm) @ self.shares


def simulate_scatter(
    thickness_mm: float, setup: ScatterSetup, rng: np.random.Generator
) -> SlabScatter:
    """Trace a pencil beam of photons through a slab of water to the detector.

    Photons are drawn from the tube's spectrum and traced through at most 25 interactions; the
    detector is caesium iodide. By reciprocity, the scatter of a pencil beam over the whole
    detector equals that of a wide field at one point.
    """
    photons = _emit_photons(rng, setup.kvp, setup.num_photons)
    open_beam = _detected(photons["energy"], np.ones(setup.num_photons)).sum()
    primary, scattered = 0.0, np.zeros(len(SCATTER_RADII_MM) - 1)
    for interaction in range(_MAX_INTERACTIONS):
        leaving = _move(rng, photons, thickness_mm)
        signal, radius = _detect(leaving, thickness_mm, setup)
        if interaction == 0:
            primary = signal.sum()
        else:
            scattered += np.histogram(radius, SCATTER_RADII_MM, weights=signal)[0]
        if not len(photons["energy"]):
            break
        _absorb_or_scatter(rng, photons)
    total = scattered.sum()
    return SlabScatter(
        scattered / total, float(total / primary), float(-np.log(primary / open_beam))
    )


def fit_scatter_kernel(shares: Float[np.ndarray, " ring"]) -> ScatterKernel:
    """Fit two Gaussians to the cumulative radial distribution of scatter (least squares).

    `shares` are the shares of the scattered signal between SCATTER_RADII_MM."""
    target = np.cumsum(shares)

    def error(x: np.ndarray) -> np.ndarray:
        first = 1.0 / (1.0 + np.exp(-x[2]))
        inside = _shares_within(SCATTER_RADII_MM[1:], np.exp(x[:2]))
        return inside @ np.array([first, 1.0 - first]) - target

    fit = optimize.least_squares(error, np.array([np.log(40.0), np.log(200.0), 0.0]))
    first = 1.0 / (1.0 + np.exp(-fit.x[2]))
    order = np.argsort(fit.x[:2])
    return ScatterKernel(np.exp(fit.x[:2])[order], np.array([first, 1.0 - first])[order])


def scatter_growth_exponent(slabs: Sequence[SlabScatter]) -> float | None:
    """Fit the power of -log transmission with which scatter / primary grows; None for one slab."""
    if len(slabs) < 2:
        return None
    depth = np.log([slab.log_transmission for slab in slabs])
    ratio = np.log([slab.scatter_to_primary for slab in slabs])
    return float(np.polyfit(depth, ratio, 1)[0])


def _shares_within(
    radii_mm: Float[np.ndarray, " n"], widths_mm: Float[np.ndarray, " gaussian"]
) -> Float[np.ndarray, "n gaussian"]:
    """Compute the share of each Gaussian within each radius."""
    return 1.0 - np.exp(-0.5 * (radii_mm[:, None] / widths_mm[None]) ** 2)


def _emit_photons(rng: np.random.Generator, kvp: float, count: int) -> _Photons:
    """Draw the photons of a pencil beam along z, at the slab's entrance."""
    spectrum = tube_spectrum(kvp)
    energies = np.asarray(spectrum.energies_kev, np.float64)
    number = np.asarray(spectrum.weights, np.float64) / _detected(energies, np.ones(len(energies)))
    direction = np.zeros((count, 3))
    direction[:, 2] = 1.0
    energy = rng.choice(energies, count, p=number / number.sum())
    return {"energy": energy, "position": np.zeros((count, 3)), "direction": direction}


def _detected(energy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Signal of photons in the detector, times their weights."""
    thickness_mm = 10.0 * _CSI_G_PER_CM2 / _CSI_DENSITY
    return weight * energy * (1.0 - np.exp(-_mu("caesium_iodide", energy) * thickness_mm))


def _mu(material: str, energy: np.ndarray) -> np.ndarray:
    grid = np.arange(10.0, 151.0)
    return np.interp(energy, grid, np.asarray(linear_attenuation(material, grid), np.float64))


def _move(rng: np.random.Generator, photons: _Photons, thickness: float) -> _Photons:
    """Move photons to their next interaction. Photons that leave the slab are removed; those that
    leave forward are returned."""
    distance = rng.exponential(size=len(photons["energy"])) / _mu("water", photons["energy"])
    end = photons["position"] + distance[:, None] * photons["direction"]
    forward, backward = end[:, 2] >= thickness, end[:, 2] < 0.0
    leaving = {name: value[forward] for name, value in photons.items()}
    photons["position"] = end
    for name in photons:
        photons[name] = photons[name][~(forward | backward)]
    return leaving


def _detect(
    photons: _Photons, thickness: float, setup: ScatterSetup
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the detected signal of photons and their distance from the beam on the detector."""
    slope = photons["direction"][:, :2] / photons["direction"][:, 2:]
    way = thickness + setup.gap_mm - photons["position"][:, 2]
    place = photons["position"][:, :2] + way[:, None] * slope
    passed = np.maximum(0.0, 1.0 - setup.grid_ratio * np.abs(slope[:, 0]))  # lamellae along y
    return _detected(photons["energy"], passed), np.linalg.norm(place, axis=1)


def _absorb_or_scatter(rng: np.random.Generator, photons: _Photons) -> None:
    """Absorb or scatter each photon at its position."""
    energy = photons["energy"]
    coherent, incoherent = _interaction_shares(energy)
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
    photons["direction"] = _deflect(rng, photons["direction"], cosine)


def _interaction_shares(energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the shares of coherent and incoherent scatter among interactions in water.

    Incoherent scatter is Klein-Nishina for 10 electrons per molecule. Coherent scatter falls as
    E^-1.8 from 0.0194 cm^2/g at 50 keV (Elam et al.). The remainder is absorption.
    """
    k = energy / _REST_KEV
    log = np.log1p(2.0 * k)
    first = (1.0 + k) / k**2 * (2.0 * (1.0 + k) / (1.0 + 2.0 * k) - log / k)
    second = first + log / (2.0 * k) - (1.0 + 3.0 * k) / (1.0 + 2.0 * k) ** 2
    per_electron = 2.0 * np.pi * _ELECTRON_RADIUS_SQUARED_BARN * second
    total = _mu("water", energy)
    incoherent = per_electron * 0.33428 / 10.0 / total  # electrons / (barn cm) of water, per mm
    coherent = 0.00194 * (energy / 50.0) ** -1.8 / total
    return np.minimum(coherent, 1.0 - incoherent), incoherent


def _compton_cosine(rng: np.random.Generator, energy: np.ndarray) -> np.ndarray:
    """Draw cosines of the Klein-Nishina distribution by rejection sampling."""
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


def _deflect(rng: np.random.Generator, direction: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """Deflect directions by the angle of `cosine` at a random azimuth."""
    azimuth = rng.uniform(0.0, 2.0 * np.pi, len(cosine))
    sine = np.sqrt(np.maximum(0.0, 1.0 - cosine**2))
    helper = np.where(np.abs(direction[:, :1]) < 0.7, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    side = np.cross(helper, direction)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(direction, side)
    across = np.cos(azimuth)[:, None] * side + np.sin(azimuth)[:, None] * up
    return cosine[:, None] * direction + sine[:, None] * across
