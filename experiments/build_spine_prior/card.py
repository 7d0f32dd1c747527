"""Make the card of a prior of the spine, and the summary of its quality."""

import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from dartjax.ssm import build
from experiments.build_spine_prior.settings import Settings

_VID_SHA256 = "f9f1410a147622c9b48d84116543d224e4158a2212622b29cc57b534da8009b6"
_VID = {
    "what": "centres of bodies and pedicles in CT colonographies, VerSe and Pancreas-CT",
    "from": "https://github.com/ImFusionGmbH/VID-vertebra-identification-dataset at f19fd3c "
    "(Buergin, Prevost, Stollenga, MICCAI 2023)",
    "licence": "CC BY-SA 4.0",
}
_OWN = {"from": "the builder's own table", "licence": "that of this table"}


def card_of(
    settings: Settings, scans: Sequence[build.SpineScan], summary: Mapping[str, float]
) -> dict[str, Any]:
    """Make the card: sources, people, command and quality."""
    sha256 = hashlib.sha256(pathlib.Path(str(settings.table)).read_bytes()).hexdigest()
    source = _VID if sha256 == _VID_SHA256 else _OWN
    command = "python -m experiments.build_spine_prior --table=FILE"
    positions = [scan.position or "unknown" for scan in scans]
    return {
        "name": "without_verse" if settings.without_verse else "all",
        "licence": source["licence"],
        "sources": {"table": source | {"sha256": sha256}},
        "num_people": len({scan.person for scan in scans}),
        "num_scans": {name: positions.count(name) for name in ("supine", "prone", "unknown")},
        "num_factors": settings.num_factors,
        "command": command
        + (" --without_verse" if settings.without_verse else "")
        + f" --num_factors={settings.num_factors}",
        "quality": dict(summary),
    }


def summary_of(
    regions: Sequence[Mapping[str, Any]],
    likelihood: Mapping[str, float],
    further: Sequence[Mapping[str, Any]],
) -> dict[str, float]:
    """Make the summary of metrics.json."""
    pooled = regions[-1]
    summary = {f"inside_90_{name}": pooled[name] for name in ("distance", "angle", "pedicles")}
    summary |= {
        f"log_density_{name.replace(' ', '_')}": value for name, value in likelihood.items()
    }
    for row in further:
        name = row["prediction"].replace(" ", "_")
        summary |= {f"{key}_{name}": row[key] for key in ("median_mm", "median_deg")}
    return summary
