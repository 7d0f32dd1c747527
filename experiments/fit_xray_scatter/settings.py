"""Settings of the fit of the scatter kernel."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """The beam, the slabs of water and the detector."""

    kvp: float = setting(80.0, "Tube voltage.")
    thicknesses_mm: tuple[str, ...] = setting(("100", "150", "200", "250", "300"), "Slabs.")
    gap_mm: float = setting(320.0, "From the slab's exit to the detector.")
    grid_ratio: float = setting(8.0, "Height / gap of the anti-scatter grid; 0 = none.")
    num_photons: int = setting(3_000_000, "Photons per slab.", lower_bound=1000)
