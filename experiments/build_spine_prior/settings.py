"""Settings of the estimation of the spine's prior."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Scans, factors, and the people kept apart for the tables."""

    table: str | None = setting(
        None, "Table of body and pedicle centres (.csv or .csv.gz). Required."
    )
    without_verse: bool = setting(False, "Leave out the scans of VerSe.")
    num_factors: int = setting(12, "Number of factors.", lower_bound=1, upper_bound=40)
    held_out: float = setting(
        0.2, "Share of the people kept apart for the tables.", lower_bound=0.05, upper_bound=0.5
    )
