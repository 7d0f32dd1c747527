"""Settings of the fracture study."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Whose fractures are fitted, beside how many intact vertebrae."""

    cohort: str | None = setting(None, "Folder of SynthVerSe.")
    intact: int = setting(2, "Intact vertebrae per subject.", lower_bound=0)
    subjects: tuple[str, ...] = setting((), "Only these subjects, such as synth0008.")
