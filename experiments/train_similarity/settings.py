"""Settings of the training of the multi-view similarity."""

import dataclasses

from experiments.common.learning_settings import LearningSettings


@dataclasses.dataclass(frozen=True)
class Settings(LearningSettings):
    """Settings of the training of the multi-view similarity, the same as of every training."""
