"""Settings of the inspection of a cohort."""

import dataclasses

from dartjax.cli import setting
from experiments.common.cohort_settings import labels_setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Cohort, data to compare it with, and selection of scans and vertebrae."""

    cohort: str | None = setting(None, "Folder of CTs with masks, or a manifest.json. Required.")
    labels: str = labels_setting()
    against: tuple[str, ...] = setting(
        (), "Manifests, or folders of shape models, to search for leaks."
    )
    verse_small: str | None = setting(
        None, 'Select scans by the "rule" (VerSe\'19), or by a file with one id per line.'
    )
    centroids: str = setting(
        "auto",
        "Source of centroids: centroid files, masks, or (auto) files where they exist.",
        choices=("auto", "file", "mask"),
    )
    drop_foreign_material: bool = setting(
        False, "Reject vertebrae with metal or cement (above 2000 HU)."
    )
    skip_bad: bool = setting(False, "Continue without scans that cannot be used.")
