"""Generation and check of the tables of X-ray physics that `physics_tables` reads.

Generation needs xraydb and spekpy, which `dartjax[build]` installs; the check does not.
"""

import importlib
import importlib.util
from typing import Any

import numpy as np
from jaxtyping import Float

from dartjax._errors import DataError
from dartjax._progress import Progress, no_progress
from dartjax.render._spectrum import linear_attenuation

_ENERGIES_KEV = np.arange(10.0, 151.0)
_VOLTAGES_KV = np.arange(60.0, 121.0)
# Density (g/cm^3) and mass fractions of the elements. Tissues: ICRU Report 44 (1989), as tabulated
# by NIST (Hubbell and Seltzer, NISTIR 5632); lung inflated (ICRU 44, 0.26).
XRAY_MATERIALS: dict[str, tuple[float, dict[str, float]]] = {
    "air": (0.001205, {"C": 0.000124, "N": 0.755268, "O": 0.231781, "Ar": 0.012827}),
    "lung": (
        0.26,
        {"H": 0.103, "C": 0.105, "N": 0.031, "O": 0.749, "Na": 0.002, "P": 0.002, "S": 0.003}
        | {"Cl": 0.003, "K": 0.002},
    ),
    "adipose": (
        0.95,
        {"H": 0.114, "C": 0.598, "N": 0.007, "O": 0.278, "Na": 0.001, "S": 0.001, "Cl": 0.001},
    ),
    "soft_tissue": (
        1.06,
        {"H": 0.102, "C": 0.143, "N": 0.034, "O": 0.708, "Na": 0.002, "P": 0.003, "S": 0.003}
        | {"Cl": 0.002, "K": 0.003},
    ),
    "muscle": (
        1.05,
        {"H": 0.102, "C": 0.143, "N": 0.034, "O": 0.710, "Na": 0.001, "P": 0.002, "S": 0.003}
        | {"Cl": 0.001, "K": 0.004},
    ),
    "water": (1.0, {"H": 0.111898, "O": 0.888102}),
    "cortical_bone": (
        1.92,
        {"H": 0.034, "C": 0.155, "N": 0.042, "O": 0.435, "Na": 0.001, "Mg": 0.002, "P": 0.103}
        | {"S": 0.003, "Ca": 0.225},
    ),
    "hydroxyapatite": (3.156, {"H": 0.002007, "O": 0.414070, "P": 0.184987, "Ca": 0.398936}),
    "steel": (  # 316L
        8.0,
        {"Fe": 0.655, "Cr": 0.17, "Ni": 0.12, "Mo": 0.025, "Mn": 0.02, "Si": 0.01},
    ),
    "titanium": (4.43, {"Ti": 0.90, "Al": 0.06, "V": 0.04}),  # Ti-6Al-4V
    "aluminium": (2.699, {"Al": 1.0}),
    "copper": (8.96, {"Cu": 1.0}),
    "caesium_iodide": (4.51, {"Cs": 0.511549, "I": 0.488451}),
}
# Mass attenuation, cm^2/g, by energy in keV, printed by NIST (NISTIR 5632).
_NIST = {
    "water": {40: 0.2683, 50: 0.2269, 60: 0.2059, 80: 0.1837, 100: 0.1707},
    "cortical_bone": {40: 0.6655, 50: 0.4242, 60: 0.3148, 80: 0.2229, 100: 0.1855},
}


def build_physics_tables(
    anode_deg: float, progress: Progress = no_progress
) -> dict[str, np.ndarray]:
    """Compute attenuation by energy and tube spectra, with the keys of `physics_tables`, float64.

    `anode_deg` is the angle of the tungsten target. DataError without xraydb and spekpy.
    """
    for package in ("xraydb", "spekpy"):
        _import(package)  # fail before the long computation
    attenuation, fluence = [], []
    with progress("tables", len(XRAY_MATERIALS) + len(_VOLTAGES_KV)) as step:
        for name in XRAY_MATERIALS:
            attenuation.append(mass_attenuation(name))
            step(name)
        for voltage in _VOLTAGES_KV:
            fluence.append(tube_fluence(float(voltage), anode_deg))
            step(f"{voltage:.0f} kV")
    return {
        "energies_kev": _ENERGIES_KEV,
        "materials": np.array(list(XRAY_MATERIALS)),
        "densities": np.array([density for density, _ in XRAY_MATERIALS.values()]),
        "mass_attenuation": np.stack(attenuation),
        "voltages_kv": _VOLTAGES_KV,
        "fluence": np.stack(fluence),
    }


def mass_attenuation(material: str) -> Float[np.ndarray, " energy"]:
    """Compute the total mass attenuation of one of XRAY_MATERIALS from 10 to 150 keV, cm^2/g.

    It is the sum over its elements (xraydb), with mass fractions scaled to sum to 1. DataError
    without xraydb."""
    xraydb = _import("xraydb")
    _, fractions = XRAY_MATERIALS[material]
    total = sum(fractions.values())
    parts = [
        share / total * xraydb.mu_elam(element, 1e3 * _ENERGIES_KEV, kind="total")
        for element, share in fractions.items()
    ]
    return np.sum(parts, axis=0)


def tube_fluence(kvp: float, anode_deg: float) -> Float[np.ndarray, " energy"]:
    """Compute the unfiltered photons per keV from 10 to 150 keV with spekpy, scaled to sum to 1.
    DataError without spekpy."""
    spectrum = _import("spekpy").Spek(kvp=kvp, th=anode_deg, dk=0.5)
    energies, fluence = spectrum.get_spectrum()
    at_energies = np.interp(_ENERGIES_KEV, energies, fluence, right=0.0)
    return at_energies / at_energies.sum()


def compare_attenuation() -> list[dict[str, Any]]:
    """Compare the packaged attenuation of water and bone, cm^2/g, with xraydb.

    Without xraydb the reference is the table printed by NIST. One row per material and energy."""
    rows = []
    for material, printed in _NIST.items():
        density, _ = XRAY_MATERIALS[material]
        for energy, nist in printed.items():
            per_mm = float(linear_attenuation(material, np.array([float(energy)]))[0])
            shipped = 10.0 * per_mm / density
            source, reference = ("xraydb", _by_xraydb(material, energy))
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


def _by_xraydb(material: str, energy: int) -> float | None:
    if importlib.util.find_spec("xraydb") is None:
        return None
    (at,) = np.flatnonzero(energy == _ENERGIES_KEV)
    return float(mass_attenuation(material)[at])


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DataError(f'{package} is missing: pip install "dartjax[build]"') from error
