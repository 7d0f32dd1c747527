"""Settings shared by the training experiments."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """Subjects, initial weights and length of a training."""

    validation: tuple[str, ...] = setting((), "Held-out subjects for early stopping.")
    subjects: tuple[str, ...] = setting((), "Train on these subjects only. Default: all others.")
    begin: str | None = setting(None, "Folder of weights to start from. Default: random weights.")
    work: str | None = setting(
        None, "Folder for checkpoints. Default: a folder in that of the training data."
    )
    asset: str | None = setting(None, "Second folder to write the weights to.")
    num_steps: int | None = setting(
        None, "Number of steps. Default: that of the preset.", lower_bound=1
    )
    minutes: float = setting(float("inf"), "Stop after this time; the same command continues.")
    checkpoint_minutes: float = setting(
        3.0, "Time between checkpoints; 0: after every step.", lower_bound=0.0
    )


@dataclasses.dataclass(frozen=True)
class LearningSettings(TrainingSettings):
    """Settings of a training on crops around vertebrae."""

    cohort: str | None = setting(None, "Folder of a SynthVerSe cohort. Required.")
    crops: str | None = setting(
        None, "Folder for the X-rays simulated from the cohort; they are kept. Required."
    )
