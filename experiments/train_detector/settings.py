"""Settings of the training of the detector."""

import dataclasses

from dartjax.cli import setting
from experiments.common.learning_settings import TrainingSettings


@dataclasses.dataclass(frozen=True)
class Settings(TrainingSettings):
    """Training data of the detector."""

    xrays: tuple[str, ...] = setting((), "Data sets of simulate_xrays. Required.")
    examples: str | None = setting(
        None, "Folder for the examples made from it; they are kept. Required."
    )
    validation_images: int = setting(
        200, "Radiographs of the held-out subjects that are used.", lower_bound=1
    )
