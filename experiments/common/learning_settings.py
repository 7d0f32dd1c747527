"""The settings that both training experiments take."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class LearningSettings:
    """What a network is trained on, and for how long."""

    cohort: str | None = setting(None, "Folder of SynthVerSe.")
    crops: str | None = setting(None, "Folder for the X-rays that are made of it, kept.")
    validation: tuple[str, ...] = setting((), "Subjects to stop by; not trained on.")
    subjects: tuple[str, ...] = setting((), "Only these subjects beside them.")
    begin: str | None = setting(None, "Folder of weights to begin with, not random ones.")
    work: str | None = setting(None, "Folder for checkpoints. Default: in CROPS.")
    asset: str | None = setting(None, "Folder to write the weights to as well.")
    num_steps: int | None = setting(None, "Instead of the preset's.", lower_bound=1)
    minutes: float = setting(float("inf"), "Stop after these; go on by another call.")
