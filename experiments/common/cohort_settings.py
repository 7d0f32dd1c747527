"""The setting `labels`, shared by the experiments that read a cohort of CTs with masks."""

from typing import Any

from dartjax.anatomy import NUMBERINGS
from dartjax.cli import setting


def labels_setting() -> Any:
    """Make the setting for the numbering of the masks."""
    return setting(
        NUMBERINGS[0],
        "Numbering of the vertebrae in the masks: VerSe's, or that of TotalSegmentator version 2 "
        "or 1. A manifest knows its own.",
        choices=NUMBERINGS,
    )
