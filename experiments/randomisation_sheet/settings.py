"""Settings of the sheets of domain randomisation."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """How many random draws are shown and timed."""

    draws: int = setting(12, "Random draws shown per preset.", lower_bound=1)
    count: int = setting(200, "Images timed per preset.", lower_bound=1)
