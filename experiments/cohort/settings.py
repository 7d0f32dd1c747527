"""What a look at a cohort can be told."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """The cohort, what it is compared with, and what is left out."""

    cohort: str | None = setting(None, "Folder of CTs with masks, or a manifest.json.")
    against: tuple[str, ...] = setting(
        (), "Manifests, or folders of shape models, that no scan may leak into."
    )
    verse_small: str | None = setting(
        None, 'Keep the scans of "rule" (VerSe\'19), or of a file with one id per line.'
    )
    centroids: str = setting(
        "auto",
        "Centroids from the cohort's files, from the masks, or from files where there are any.",
        choices=("auto", "file", "mask"),
    )
    drop_foreign_material: bool = setting(
        False, "Leave out vertebrae with metal or cement (above 2000 HU)."
    )
    skip_bad: bool = setting(False, "Go on without scans that cannot be used.")
