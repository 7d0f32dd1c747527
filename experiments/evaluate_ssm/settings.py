"""What an evaluation of shape models can be told."""

import dataclasses

from dartjax.cli import setting
from experiments.common.ssm_settings import ShapeData


@dataclasses.dataclass(frozen=True)
class Settings(ShapeData):
    """The vertebrae, and the models they are fitted by."""

    modes: tuple[str, ...] = setting(("15", "40"), "Numbers of modes to fit with.")
    ssm: str | None = setting(None, "Folder of other shape models than the packaged ones.")
