"""Settings of the evaluation of simulated radiographs."""

import dataclasses

from dartjax.cli import setting
from experiments.common.cohort_settings import labels_setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """CT and imaging settings."""

    demo: bool = setting(False, "Use the example chest CT.")
    cohort: str | None = setting(None, "Folder of CTs with vertebra masks.")
    labels: str = labels_setting()
    subject: str | None = setting(None, "Subject of the cohort. Default: the first.")
    image_size: int = setting(512, "Pixels per side.", lower_bound=64, upper_bound=2048)
    detector_mm: float = setting(
        400.0, "Side length of the detector, mm.", lower_bound=50.0, upper_bound=2000.0
    )
    kvp: float = setting(80.0, "Tube voltage, kV.", lower_bound=60.0, upper_bound=120.0)
