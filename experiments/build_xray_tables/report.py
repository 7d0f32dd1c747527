"""Make the card of the tables of X-ray physics: sources and contents."""

import hashlib
import importlib.metadata
from typing import Any

from dartjax.render import XRAY_MATERIALS

_SOURCES = {
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


def card_of(tables: bytes, *, anode_deg: float, commit: str) -> dict[str, Any]:
    """Make the card of the tables, which are given as the content of their file."""
    sources = {}
    for name, source in _SOURCES.items():
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
        "materials": {name: fractions for name, (_, fractions) in XRAY_MATERIALS.items()},
        "anode_deg": anode_deg,
        "command": "python -m experiments.build_xray_tables",
        "seed": "none: nothing is random",
        "commit": commit,
        "sha256": hashlib.sha256(tables).hexdigest(),
    }
