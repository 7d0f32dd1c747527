"""The vertebrae of --data, for the experiments on shape models."""

import dataclasses
import pathlib
from collections.abc import Sequence

from dartjax import data


def shape_folder(given: str | None) -> pathlib.Path:
    """The folder --data names; DataError if it was not given."""
    if given is None:
        raise data.DataError("--data is needed: a folder with masks or meshes of vertebrae")
    return pathlib.Path(given)


def rejected_entries(rejected: Sequence[data.Rejected]) -> list[dict[str, str]]:
    """What was left out and why, for a record."""
    return [{**dataclasses.asdict(each), "source": each.source.name} for each in rejected]
