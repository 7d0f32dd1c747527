"""Settings of `navigate`."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which vertebrae, how many placements, how exactly they are marked."""

    cohort: tuple[str, ...] = setting((), "Folders of CTs with masks; default: the example CT.")
    subjects: tuple[str, ...] = setting((), "Only these subjects of the cohort.")
    levels: str = setting("T11,T12,L1", "Levels, such as L1-L5 or T10,L1.")
    repeats: int = setting(4, "Placements per pedicle.", lower_bound=1)
    click_px: float = setting(1.0, "Standard deviation of marks, px per axis.")
    targets: int = setting(40, "Points located per pair of images.", lower_bound=1)
    robots: int = setting(200, "Robots of the closed-loop study.", lower_bound=2)
    bolus: bool = setting(True, "Bags of saline where the beam would be bare.")
    run: str | None = setting(None, "Run folder of `reconstruct` whose plans to follow too.")
