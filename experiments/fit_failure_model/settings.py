"""Settings of the fit of the failure model."""

import dataclasses

from dartjax.cli import setting

# Methods with an objective whose curvature can be had.
RECIPES = ("landmarks+masks", "ncc", "xvr", "alone", "classical")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the failure model is fitted on, and how much risk its threshold accepts."""

    cohort: str | None = setting(None, "Folder of synthetic CTs in VerSe layout.")
    subjects: tuple[str, ...] = setting((), "Only these subjects of the cohort.")
    levels: str | None = setting(None, "Only these levels, such as T5-L2.")
    pairs: int = setting(2, "Pairs of views per subject.", lower_bound=1)
    trials: tuple[str, ...] = setting((), "Trials of earlier runs instead of a cohort.")
    asset: str | None = setting(None, "Folder to write the model to as well.")
    recipe: str = setting("classical", "Method that answers.", choices=RECIPES)
    max_risk: float = setting(
        0.1,
        "Highest share of failures among the answers given, here.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
