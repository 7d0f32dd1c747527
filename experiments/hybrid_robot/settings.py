"""Settings of `hybrid_robot`."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """How many poses and robots are simulated."""

    poses: int = setting(100_000, "Poses of the round trips.", lower_bound=1)
    robots: int = setting(200, "Simulated robots to calibrate.", lower_bound=2)
