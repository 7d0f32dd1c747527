"""Settings of `distal_locking`."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """How many images, poses and operations are simulated, over which anatomy."""

    cohort: str | None = setting(None, "Folder or manifest of CTs for the anatomy.")
    backgrounds: int = setting(48, "Anatomy radiographs.", lower_bound=40, upper_bound=1000)
    carms: int = setting(10, "Calibrated poses of the C-arm.", lower_bound=1, upper_bound=200)
    images: int = setting(78, "Images with guide and nail.", lower_bound=8, upper_bound=100000)
    negatives: int = setting(200, "Images without a target.", lower_bound=0, upper_bound=1000000)
    poses: int = setting(
        1000, "Sets of ideal points per pose table.", lower_bound=10, upper_bound=1000000
    )
    draws: int = setting(
        20, "Noise draws per image of figure 10.", lower_bound=2, upper_bound=10000
    )
    operations: int = setting(
        17, "Operations per mounting and view.", lower_bound=1, upper_bound=10000
    )
