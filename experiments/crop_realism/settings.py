"""Settings of the comparison of synthetic and real crops."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Cohorts that are compared."""

    real: str = setting("", "Folder of real CTs with masks in VerSe layout. Required.")
    synthetic: str = setting("", "Folder of a SynthVerSe cohort. Required.")
    earlier: str | None = setting(None, "Another SynthVerSe cohort, shown beside it.")
    bodies: tuple[str, ...] = setting(
        (), "Real subjects whose CT is cropped to the spine: they are placed in synthetic bodies."
    )
    subjects: int = setting(8, "Subjects of each synthetic cohort.", lower_bound=2)
    draws: int = setting(2, "Sets of eight crops per vertebra.", lower_bound=1)
    crops: str | None = setting(None, "Folder for the crops; it is kept. Default: OUT/crops.")
