"""Settings of the evaluation of the failure model."""

import dataclasses

from dartjax.cli import setting

# Methods with an objective whose curvature can be had.
RECIPES = ("landmarks+masks", "ncc", "xvr", "alone", "classical")
DETECTORS = ("standard", "stress")


@dataclasses.dataclass(frozen=True)
class Settings:
    """On whom the failure model is evaluated, and on which answers."""

    cohort: str | None = setting(None, "Folder of CTs in VerSe layout.")
    levels: str | None = setting(None, "Only these levels, such as T5-L2.")
    pairs: int = setting(6, "Pairs of views per subject.", lower_bound=1)
    detector: str = setting("stress", "Error model.", choices=DETECTORS)
    trials: tuple[str, ...] = setting((), "Trials of earlier runs instead of a cohort.")
    failure_model: str | None = setting(None, "Folder of another model than the packaged.")
    recipe: str = setting("classical", "Method that answers.", choices=RECIPES)
    recovery: bool = setting(True, "Try again where answers are refused.")
