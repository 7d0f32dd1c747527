"""Settings of the fracture study."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Subjects of the study, and the number of intact vertebrae."""

    cohort: str | None = setting(None, "Folder of a cohort. Required.")
    intact: int = setting(2, "Number of intact vertebrae per subject.", lower_bound=0)
    subjects: tuple[str, ...] = setting((), "Only these subjects, such as synth0008.")
    fractured: tuple[str, ...] = setting(
        (), "Fractured vertebrae of a real cohort, as SUBJECT/LEVEL/GRADE with Genant's grade."
    )
    pairs: int = setting(1, "Pairs of views per subject.", lower_bound=1)
