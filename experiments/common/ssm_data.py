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


def whole_numbers(given: Sequence[str], flag: str) -> list[int]:
    """Return the numbers of a flag. DataError for other words and for numbers under 1."""
    for text in given:
        if not text.strip().isdigit() or int(text) < 1:
            raise data.DataError(f"--{flag}={text}: give whole numbers from 1, such as 15,40")
    return [int(text) for text in given]
