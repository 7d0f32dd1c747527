"""Settings of the fit of the failure model."""

import dataclasses

from dartjax.cli import setting

# Methods whose objective has a curvature, as the assessment needs.
RECIPES = ("landmarks+masks", "ncc", "xvr", "alone", "classical")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Data of the failure model, and the risk that its threshold accepts."""

    cohort: str | None = setting(None, "Folder of synthetic CTs in VerSe layout.")
    subjects: tuple[str, ...] = setting((), "Only these subjects of the cohort.")
    levels: str | None = setting(None, "Only these levels, such as T5-L2.")
    pairs: int = setting(2, "Pairs of views per subject.", lower_bound=1)
    trials: tuple[str, ...] = setting((), "trials.npz files of earlier runs, instead of --cohort.")
    asset: str | None = setting(None, "Second folder to write the model to.")
    recipe: str = setting("classical", "Method of the reconstructions.", choices=RECIPES)
    max_risk: float = setting(
        0.1,
        "Highest share of failures among the accepted answers of these trials.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
