"""Read arrays (without pickle) and cards that dartjax has written."""

import contextlib
import json
import pathlib
import zipfile
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from dartjax._errors import DataError
from dartjax.data.formats import PathLike

CARD = "card.json"


@contextlib.contextmanager
def open_arrays(
    file: PathLike, *, problem: str = "is damaged", remedy: str = "install dartjax again"
) -> Iterator[Any]:
    """Open the arrays of an npz by name, without pickle.

    An error while they are used (a damaged file, a missing name) becomes a DataError: the file
    and the `problem`, then the `remedy`.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except DataError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, KeyError, ValueError) as error:
        raise DataError(f"{file} {problem} ({error}): {remedy}") from error


def read_card(
    folder: PathLike, *, data_file: str, fields: Collection[str], what: str, maker: str
) -> dict[str, Any]:
    """Read the card of a folder.

    DataError when the card or the `data_file` is missing, and when the card is damaged or lacks one
    of the fields.
    """
    source = pathlib.Path(folder)
    for name in (data_file, CARD):
        if not (source / name).is_file():
            raise DataError(f"no {name} in {source}: give a folder written by dartjax.data.{maker}")
    try:
        card = json.loads((source / CARD).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{source / CARD} is damaged ({error}): install dartjax again") from error
    missing = set(fields) - set(card) if isinstance(card, dict) else set(fields)
    if missing:
        lacking = ", ".join(sorted(missing))
        raise DataError(f"{source / CARD} lacks {lacking}: it is not the card of {what}")
    return card


def write_card(folder: pathlib.Path, card: dict[str, Any]) -> None:
    """Write a card into a folder."""
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
