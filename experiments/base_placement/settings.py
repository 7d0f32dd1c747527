"""Settings of `base_placement`."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Paths, optimiser, and displacement of the patient in the robustness test."""

    run: str | None = setting(
        None, "Run folder of `reconstruct` with the paths. Default: paths of mean shapes."
    )
    steps: int = setting(200, "Steps of the optimiser of the placement.", lower_bound=1)
    draws: int = setting(200, "Number of displaced patients in the robustness test.", lower_bound=1)
    patient_shift_mm: float = setting(
        5.0, "Standard deviation of their shift per axis, mm.", lower_bound=0.0
    )
    patient_turn_deg: float = setting(
        2.0, "Standard deviation of their rotation per axis, degrees.", lower_bound=0.0
    )
