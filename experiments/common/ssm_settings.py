"""Settings shared by the experiments on shape models."""

import dataclasses

from dartjax.cli import setting
from experiments.common.cohort_settings import labels_setting


@dataclasses.dataclass(frozen=True)
class ShapeData:
    """Vertebrae, and subjects that the models must not have seen."""

    data: str | None = setting(None, "Folder with masks or meshes of vertebrae. Required.")
    labels: str = labels_setting()
    exclude_subjects: tuple[str, ...] = setting(
        (), "Subjects that the models must not have seen, such as lidc0001,tptct."
    )
    exclude_vertebrae: tuple[str, ...] = setting(
        (), "Vertebrae that are not used, such as fractured ones: SUBJECT/LEVEL,..."
    )
