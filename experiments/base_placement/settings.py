"""Settings of `base_placement`."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Whose paths, how long to search, and how the patient is displaced in the test."""

    run: str | None = setting(None, "Folder of a `reconstruct` run whose paths to follow.")
    steps: int = setting(200, "Steps of the placement's optimiser.", lower_bound=1)
    draws: int = setting(200, "Displaced patients in the test.", lower_bound=1)
    patient_shift_mm: float = setting(5.0, "Their shift, SD per axis.", lower_bound=0.0)
    patient_turn_deg: float = setting(2.0, "Their turn, SD per axis.", lower_bound=0.0)
