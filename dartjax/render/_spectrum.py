"""X-ray tube spectra as a few weighted energies, and attenuation by energy from packaged tables.

The tables (`dartjax/assets/xray`, made by `experiments.build_xray_tables`) hold total mass
attenuation from 10 to 150 keV and unfiltered spectra of a tungsten anode from 60 to 120 kV.
"""

import functools
import pathlib

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import optimize

TABLES = pathlib.Path(__file__).parent.parent / "assets" / "xray" / "tables.npz"
_CSI_G_PER_CM2 = 0.2  # about 0.6 mm of columnar caesium iodide, packed to 3/4
# Depths of water and cortical bone (mm) to which a reduced spectrum is fitted.
_FIT_WATER_MM = np.linspace(0.0, 400.0, 9)
_FIT_BONE_MM = np.array([0.0, 10.0, 30.0, 60.0])


class Spectrum(eqx.Module):
    """Spectrum of the open beam as an energy-integrating detector weights it, in a few energies."""

    energies_kev: Float[Array, " bin"]
    weights: Float[Array, " bin"]  # share of the detected energy, sums to 1


@functools.cache
def physics_tables() -> dict[str, np.ndarray]:
    """Load the packaged tables of X-ray physics. Host function.

    Keys: `energies_kev`, `materials`, `densities` (g/cm^3), `mass_attenuation` (material, energy;
    cm^2/g), `voltages_kv` and `fluence` (voltage, energy; photons per keV, rows sum to 1)."""
    with np.load(TABLES, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def material_names() -> tuple[str, ...]:
    """Return the names of the materials whose attenuation is tabulated."""
    return tuple(str(name) for name in physics_tables()["materials"])


def linear_attenuation(
    material: str, energies_kev: Float[Array, " bin"] | Float[np.ndarray, " bin"]
) -> Float[Array, " bin"]:
    """Return the linear attenuation of a material at its own density, 1/mm, at each energy.

    The table is interpolated log-log; below 10 and above 150 keV the border value is used.
    ValueError for a material that is not tabulated.
    """
    row = _row(material)
    tables = physics_tables()
    per_mm = tables["mass_attenuation"][row] * tables["densities"][row] / 10.0
    energies = jnp.asarray(energies_kev, jnp.float32)
    grid = jnp.asarray(np.log(tables["energies_kev"]), jnp.float32)
    table = jnp.asarray(np.log(per_mm), jnp.float32)
    return jnp.exp(jnp.interp(jnp.log(energies), grid, table))


def tube_spectrum(
    kvp: float, *, filtration_mm_al: float = 3.0, filtration_mm_cu: float = 0.1
) -> Spectrum:
    """Compute the detected spectrum behind the filters, without a patient, in bins of 1 keV.

    Weights are fluence x energy x the share of photons that 0.2 g/cm^2 of caesium iodide
    absorbs. Host function. ValueError for a voltage outside 60-120 kV or negative filters.
    """
    tables = physics_tables()
    voltages = tables["voltages_kv"]
    if not voltages[0] <= kvp <= voltages[-1]:
        raise ValueError(f"kvp is {kvp:g}: spectra are tabulated from 60 to 120 kV")
    if not (filtration_mm_al >= 0.0 and filtration_mm_cu >= 0.0):
        raise ValueError(
            "filtration is negative or NaN: give the millimetres of aluminium and copper"
        )
    below = min(int(kvp - voltages[0]), len(voltages) - 2)
    part = kvp - voltages[below]
    fluence = (1.0 - part) * tables["fluence"][below] + part * tables["fluence"][below + 1]
    energies = tables["energies_kev"]
    filters = filtration_mm_al * _per_mm("aluminium") + filtration_mm_cu * _per_mm("copper")
    absorbed = 1.0 - np.exp(-_CSI_G_PER_CM2 * tables["mass_attenuation"][_row("caesium_iodide")])
    detected = fluence * np.exp(-filters) * energies * absorbed
    kept = detected > 1e-6 * detected.max()
    weights = detected[kept] / detected[kept].sum()
    return Spectrum(jnp.asarray(energies[kept]), jnp.asarray(weights, jnp.float32))


def reduced_spectrum(whole: Spectrum, num_bins: int) -> Spectrum:
    """Approximate a spectrum by `num_bins` energies and weights.

    They are fitted by least squares to the -log(I / I0) of the whole spectrum behind 0-400 mm of
    water and 0-60 mm of cortical bone. With 3 bins the error is below 0.5 % of -log(I / I0)
    anywhere in that range. Host function, takes some tenths of a second. ValueError for fewer
    than 1 bin.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}: at least one energy is needed")
    energies, weights = (np.asarray(a, np.float64) for a in (whole.energies_kev, whole.weights))
    if num_bins >= len(energies):
        return whole
    water, bone = (a.ravel() for a in np.meshgrid(_FIT_WATER_MM, _FIT_BONE_MM))
    water, bone = water[1:], bone[1:]  # the entry without water and bone attenuates nothing

    def depth(energies: np.ndarray, weights: np.ndarray) -> np.ndarray:
        mu = [np.interp(energies, physics_tables()["energies_kev"], _per_mm(m)) for m in _BASIS]
        paths = water[:, None] * mu[0] + bone[:, None] * mu[1]
        return -np.log(np.exp(-paths) @ weights)

    def unpack(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        share = np.exp(x[num_bins:] - x[num_bins:].max())
        return 10.0 + np.cumsum(np.exp(x[:num_bins])), share / share.sum()

    target = depth(energies, weights)
    middle = np.interp((np.arange(num_bins) + 0.5) / num_bins, np.cumsum(weights), energies)
    first = np.concatenate([np.log(np.diff(middle, prepend=10.0)), np.zeros(num_bins)])
    fit = optimize.least_squares(lambda x: depth(*unpack(x)) / target - 1.0, first)
    best, share = unpack(fit.x)
    return Spectrum(jnp.asarray(best, jnp.float32), jnp.asarray(share, jnp.float32))


_BASIS = ("water", "cortical_bone")


def _row(material: str) -> int:
    names = material_names()
    if material not in names:
        raise ValueError(f"material {material!r} is not tabulated: use {', '.join(names)}")
    return names.index(material)


def _per_mm(material: str) -> np.ndarray:
    """Attenuation of a material at the tabulated energies and its own density, 1/mm."""
    tables, row = physics_tables(), _row(material)
    return tables["mass_attenuation"][row] * tables["densities"][row] / 10.0
