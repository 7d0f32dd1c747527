"""Settings of `distal_locking`."""

import dataclasses

from dartjax.cli import setting
from experiments.common.cohort_settings import labels_setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of simulated images, poses and operations, and their anatomy."""

    cohort: str | None = setting(
        None, "Folder or manifest of CTs for the anatomy. Default: the example CT."
    )
    labels: str = labels_setting()
    backgrounds: int = setting(
        48, "Number of anatomy radiographs.", lower_bound=40, upper_bound=1000
    )
    carms: int = setting(
        10,
        "Number of calibrated poses of the C-arm.",
        lower_bound=1,
        upper_bound=200,
    )
    images: int = setting(
        78, "Number of images with guide and nail.", lower_bound=8, upper_bound=100000
    )
    negatives: int = setting(
        200, "Number of images without guide and nail.", lower_bound=0, upper_bound=1000000
    )
    poses: int = setting(
        1000, "Sets of simulated points per pose table.", lower_bound=10, upper_bound=1000000
    )
    draws: int = setting(
        20, "Noise draws per image in the figure of edge noise.", lower_bound=2, upper_bound=10000
    )
    operations: int = setting(
        17, "Number of operations per mounting and view.", lower_bound=1, upper_bound=10000
    )
