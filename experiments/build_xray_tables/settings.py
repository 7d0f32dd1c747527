"""Settings of the tables of X-ray physics."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """X-ray tube of the spectra."""

    anode_deg: float = setting(12.0, "Anode angle of the tungsten target, degrees.")
