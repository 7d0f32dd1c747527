"""Settings of `admittance_tuning`."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Length and start of the search."""

    generations: int = setting(30, "Number of generations of the search.", lower_bound=1)
    resume: str | None = setting(None, "tuned.json of an earlier search to continue.")
