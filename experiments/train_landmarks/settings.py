"""Settings of the training of the landmark network."""

import dataclasses

from experiments.common.learning_settings import LearningSettings


@dataclasses.dataclass(frozen=True)
class Settings(LearningSettings):
    """Settings of the training of the landmark network, the same as of every training."""
