"""Settings of the evaluation of the failure model."""

import dataclasses

from dartjax.cli import setting
from experiments.common.cohort_settings import labels_setting

# Methods whose objective has a curvature, as the assessment needs.
RECIPES = ("landmarks+masks", "ncc", "xvr", "alone", "classical")
DETECTORS = ("standard", "stress")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Subjects and answers that the failure model is evaluated on."""

    cohort: str | None = setting(None, "Folder of CTs in VerSe layout.")
    labels: str = labels_setting()
    levels: str | None = setting(None, "Only these levels, such as T5-L2.")
    pairs: int = setting(6, "Pairs of views per subject.", lower_bound=1)
    detector: str = setting("stress", "Error model of the simulated detections.", choices=DETECTORS)
    trials: tuple[str, ...] = setting((), "trials.npz files of earlier runs, instead of --cohort.")
    failure_model: str | None = setting(
        None, "Folder of a failure model. Default: the packaged one."
    )
    recipe: str = setting("classical", "Method of the reconstructions.", choices=RECIPES)
    recovery: bool = setting(True, "Try to repair the answers that the model abstains from.")
