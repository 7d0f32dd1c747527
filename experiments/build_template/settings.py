"""Settings of a build of the template."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Surfaces of the template."""

    data: str | None = setting(None, "Folder with the surfaces, SOURCE/LEVEL.ply. Required.")
