"""Settings of the fit of the scatter kernel."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Beam, water slabs and detector."""

    kvp: float = setting(80.0, "Tube voltage, kV.")
    thicknesses_mm: tuple[str, ...] = setting(
        ("100", "150", "200", "250", "300"), "Slabs' thicknesses, mm."
    )
    gap_mm: float = setting(320.0, "Distance from the slab to the detector, mm.")
    grid_ratio: float = setting(8.0, "Ratio of the anti-scatter grid; 0 for no grid.")
    num_photons: int = setting(3_000_000, "Number of photons per slab.", lower_bound=1000)
