"""Settings of the evaluation of shape models."""

import dataclasses

from dartjax.cli import setting
from experiments.common.ssm_settings import ShapeData


@dataclasses.dataclass(frozen=True)
class Settings(ShapeData):
    """Vertebrae, and models that are fitted to them."""

    modes: tuple[str, ...] = setting(("15", "40"), "Numbers of modes to fit with.")
    fracture_modes: bool = setting(False, "Add the three fracture modes to every model.")
    ssm: str | None = setting(None, "Folder with shape models. Default: the packaged shape models.")
