"""Settings of the sheets of domain randomisation."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of random draws that are shown and timed."""

    draws: int = setting(12, "Number of random draws shown per preset.", lower_bound=1)
    count: int = setting(200, "Number of images timed per preset.", lower_bound=1)
