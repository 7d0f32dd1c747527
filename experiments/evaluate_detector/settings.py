"""Settings of the evaluation of the detector."""

import dataclasses

from dartjax.cli import setting
from experiments.common.cohort_settings import labels_setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the networks are evaluated on."""

    cohort: str | None = setting(None, "Folder or manifest of CTs with vertebra masks.")
    labels: str = labels_setting()
    subjects: tuple[str, ...] = setting((), "Subjects of the cohort. Default: all.")
    bodies: tuple[str, ...] = setting(
        (), "Subjects whose CT is cropped to the spine: they are placed in synthetic bodies."
    )
    views: str = setting(
        "random", "Views: from all sides, or AP and lateral.", choices=("random", "orthogonal")
    )
    pairs: int = setting(5, "Pairs of views of every subject.", lower_bound=1)
    images: str | None = setting(
        None, "Folder of real radiographs, with or without boxes of the bodies (YOLO .txt) beside."
    )
    detector_weights: str | None = setting(
        None, "Folder of weights of experiments.train_detector. Default: the packaged ones."
    )
    landmark_weights: str | None = setting(
        None, "Folder of weights of experiments.train_landmarks. Default: the packaged ones."
    )
