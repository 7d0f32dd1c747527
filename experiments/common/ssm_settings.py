"""What the experiments on shape models can all be told."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class ShapeData:
    """Which vertebrae, and which subjects models must not know."""

    data: str | None = setting(None, "Folder with masks or meshes of vertebrae.")
    exclude_subjects: tuple[str, ...] = setting(
        (), "Subjects the models have not seen; such as lidc0001,tptct."
    )
