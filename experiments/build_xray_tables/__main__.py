"""Make the tables of X-ray physics that dartjax ships: attenuation by energy, tube spectra.

    python -m experiments.build_xray_tables --out=FOLDER

FOLDER receives tables.npz and card.json; copy both to dartjax/assets/xray to ship them. Takes
under a minute. Needs the `build` extra (pip install "dartjax[build]"); the library itself reads
the tables with NumPy alone.
"""

import hashlib
import importlib
import importlib.metadata
import json
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float

from dartjax import cli
from dartjax.data import DataError

_ANODE_DEG = flags.DEFINE_float("anode_deg", 12.0, "Anode angle of the tungsten target, degrees.")

ENERGIES_KEV = np.arange(10.0, 151.0)
VOLTAGES_KV = np.arange(60.0, 121.0)
# Mass fractions and densities (g/cm^3). Tissues: ICRU Report 44 (1989), as tabulated by NIST
# (Hubbell and Seltzer, NISTIR 5632); lung inflated (ICRU 44, 0.26).
MATERIALS: dict[str, tuple[float, dict[str, float]]] = {
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
SOURCES = {
    "attenuation": {
        "what": "total mass attenuation of the elements (Elam et al., Radiat. Phys. Chem. 63, 2002)"
        " by xraydb.mu_elam, added by mass fraction (ICRU Report 44 for tissues)",
        "from": "https://pypi.org/project/xraydb/",
        "licence": "MIT (Matthew Newville); the data are in the public domain",
        "package": "xraydb",
    },
    "spectra": {
        "what": "tungsten anode without filtration (Poludniowski et al., Med. Phys. 48, 2021)",
        "from": "https://pypi.org/project/spekpy/",
        "licence": "MIT (Robert Bujila and Gavin Poludniowski)",
        "package": "spekpy",
    },
}


def main(ctx: cli.RunContext) -> None:
    """Compute the tables; write them with their card."""
    for source in SOURCES.values():
        _import(source["package"])  # both, before the work
    with cli.progress("tables", len(MATERIALS) + len(VOLTAGES_KV)) as step:
        attenuation = {}
        for name, (_, fractions) in MATERIALS.items():
            attenuation[name] = mass_attenuation(fractions)
            step(name)
        fluence = []
        for voltage in VOLTAGES_KV:
            fluence.append(tube_fluence(float(voltage), _ANODE_DEG.value))
            step(f"{voltage:.0f} kV")
    path = ctx.out / "tables.npz"
    np.savez_compressed(
        path,
        energies_kev=ENERGIES_KEV.astype(np.float32),
        materials=np.array(list(MATERIALS)),
        densities=np.array([density for density, _ in MATERIALS.values()], np.float32),
        mass_attenuation=np.stack(list(attenuation.values())).astype(np.float32),
        voltages_kv=VOLTAGES_KV.astype(np.float32),
        fluence=np.stack(fluence).astype(np.float32),
    )
    (ctx.out / "card.json").write_text(json.dumps(card(ctx, path.read_bytes()), indent=1) + "\n")
    record = ctx.record(
        dataset="tables of X-ray physics",
        dataset_kind="synthetic",
        subjects=[],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    at_60 = {f"{name}_60kev_cm2_per_g": float(mu[50]) for name, mu in attenuation.items()}
    ctx.save_metrics(record, at_60, [])


def mass_attenuation(fractions: dict[str, float]) -> Float[np.ndarray, " energy"]:
    """Total mass attenuation at `ENERGIES_KEV`, cm^2/g, fractions scaled to add to 1."""
    xraydb = _import("xraydb")
    total = sum(fractions.values())
    parts = [
        share / total * xraydb.mu_elam(element, 1e3 * ENERGIES_KEV, kind="total")
        for element, share in fractions.items()
    ]
    return np.sum(parts, axis=0)


def tube_fluence(kvp: float, anode_deg: float) -> Float[np.ndarray, " energy"]:
    """Photons per keV at `ENERGIES_KEV`, scaled to add to 1, before any filter."""
    spectrum = _import("spekpy").Spek(kvp=kvp, th=anode_deg, dk=0.5)
    energies, fluence = spectrum.get_spectrum()
    at_energies = np.interp(ENERGIES_KEV, energies, fluence, right=0.0)
    return at_energies / at_energies.sum()


def card(ctx: cli.RunContext, tables: bytes) -> dict[str, Any]:
    """Where the tables come from and what is in them."""
    sources = {}
    for name, source in SOURCES.items():
        version = importlib.metadata.version(source["package"])
        sources[name] = source | {"version": version}
    return {
        "name": "xray",
        "kind": "mass attenuation by energy and unfiltered tube spectra",
        "sources": sources,
        "units": {
            "energies_kev": "keV",
            "densities": "g/cm^3",
            "mass_attenuation": "cm^2/g, one row per material",
            "voltages_kv": "kV",
            "fluence": "share of the photons per keV, one row per voltage",
        },
        "materials": {name: fractions for name, (_, fractions) in MATERIALS.items()},
        "anode_deg": _ANODE_DEG.value,
        "command": "python -m experiments.build_xray_tables",
        "seed": "none: nothing is random",
        "commit": ctx.config["commit"],
        "sha256": hashlib.sha256(tables).hexdigest(),
    }


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DataError(f'{package} is missing: pip install "dartjax[build]"') from error


if __name__ == "__main__":
    cli.run(main)
