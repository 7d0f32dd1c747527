"""Settings of `navigate`."""

import dataclasses

from dartjax.cli import setting
from experiments.common.cohort_settings import labels_setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Vertebrae, number of placements, and accuracy of the marks."""

    cohort: tuple[str, ...] = setting((), "Folders of CTs with masks. Default: the example CT.")
    labels: str = labels_setting()
    subjects: tuple[str, ...] = setting((), "Only these subjects of the cohort.")
    levels: str = setting("T11,T12,L1", "Levels, such as L1-L5 or T10,L1.")
    repeats: int = setting(4, "Number of placements per pedicle.", lower_bound=1)
    click_px: float = setting(
        1.0, "Standard deviation of the marks in the images, pixels per axis."
    )
    targets: int = setting(40, "Number of points located per pair of images.", lower_bound=1)
    robots: int = setting(200, "Number of robots in the closed-loop study.", lower_bound=2)
    bolus: bool = setting(True, "Simulate saline bags where the beam would not pass the body.")
    run: str | None = setting(None, "Run folder of `reconstruct`; its plans are also followed.")
