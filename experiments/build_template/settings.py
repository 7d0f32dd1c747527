"""What a build of the template can be told."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where the surfaces lie."""

    data: str | None = setting(None, "Folder with SOURCE/LEVEL.ply.")
