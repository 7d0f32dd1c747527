"""Read --data, for the experiments on shape models."""

import dataclasses
import pathlib
from collections.abc import Sequence

from dartjax import data


def shape_folder(given: str | None) -> pathlib.Path:
    """Return the folder of --data. DataError if it is missing."""
    if given is None:
        raise data.DataError("--data is required: give a folder with masks or meshes of vertebrae")
    return pathlib.Path(given)


def rejected_entries(rejected: Sequence[data.Rejected]) -> list[dict[str, str]]:
    """Make entries of a record for rejected vertebrae."""
    return [{**dataclasses.asdict(each), "source": each.source.name} for each in rejected]
