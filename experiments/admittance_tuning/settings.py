"""Settings of `admittance_tuning`."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long to search, and from where."""

    generations: int = setting(30, "Generations of the search.", lower_bound=1)
    resume: str | None = setting(None, "tuned.json of an earlier search to go on from.")
