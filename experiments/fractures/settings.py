"""Settings of the fracture study."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Subjects of the study, and the number of intact vertebrae."""

    cohort: str | None = setting(None, "Folder of a SynthVerSe cohort. Required.")
    intact: int = setting(2, "Number of intact vertebrae per subject.", lower_bound=0)
    subjects: tuple[str, ...] = setting((), "Only these subjects, such as synth0008.")
