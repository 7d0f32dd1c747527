"""Settings of a build of shape models."""

import dataclasses

from dartjax.cli import setting
from experiments.common.ssm_settings import ShapeData


@dataclasses.dataclass(frozen=True)
class Settings(ShapeData):
    """Vertebrae, covariance of the models, and quality measures."""

    name: str = setting("", "Name of the set. Default: from --exclude_subjects.")
    packaged: bool = setting(False, "Build all packaged sets.")
    num_modes: int = setting(40, "Number of modes stored per region.", lower_bound=1)
    recipe: str = setting(
        "full",
        "Covariance of the models. full: sample covariance, Gaussian process and motions of "
        "parts; smooth: full without the motions of parts; pca: sample covariance only.",
        choices=("full", "pca", "smooth"),
    )
    quality: bool = setting(True, "Measure generalisation, specificity and lengths of the models.")
    leave_out: bool = setting(
        True, "Also fit every subject with models built without it (leave-one-out)."
    )
    subject_counts: tuple[str, ...] = setting(
        (), "Also measure models of so many subjects, such as 1,2,4."
    )
    processes: int = setting(2, "Number of processes.", lower_bound=1)
