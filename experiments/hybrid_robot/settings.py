"""Settings of `hybrid_robot`."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of simulated poses and robots."""

    poses: int = setting(100_000, "Number of poses for the kinematics.", lower_bound=1)
    robots: int = setting(200, "Number of simulated robots to calibrate.", lower_bound=2)
