"""What a build of shape models can be told."""

import dataclasses

from dartjax.cli import setting
from experiments.common.ssm_settings import ShapeData


@dataclasses.dataclass(frozen=True)
class Settings(ShapeData):
    """The vertebrae, the covariance of the models, and what is measured."""

    num_modes: int = setting(40, "Modes stored per region.", lower_bound=1)
    recipe: str = setting(
        "full",
        "Covariance: of the shapes, a Gaussian process and motions of parts (full), of the shapes "
        "alone (pca), or without the motions of parts (smooth).",
        choices=("full", "pca", "smooth"),
    )
    quality: bool = setting(True, "Measure generalisation, specificity and lengths.")
    leave_out: bool = setting(
        True, "Among the tables, fits of every subject by models built without it."
    )
