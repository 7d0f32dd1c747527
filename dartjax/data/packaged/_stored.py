"""Reading what dartjax has written: arrays without pickle, and the card beside them."""

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
    file: PathLike, *, otherwise: str = "is damaged", remedy: str = "install dartjax again"
) -> Iterator[Any]:
    """The arrays of an npz by name, read without pickle. What goes wrong while they are used
    (a damaged file, a missing name) becomes one DataError: the file `otherwise`, and the
    `remedy`."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except DataError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, KeyError, ValueError) as error:
        raise DataError(f"{file} {otherwise} ({error}): {remedy}") from error


def read_card(
    folder: PathLike, *, beside: str, fields: Collection[str], what: str, maker: str
) -> dict[str, Any]:
    """The card of what was written into a folder. DataError when it, or the file `beside` it, is
    missing, or when it is damaged or lacks one of the fields."""
    source = pathlib.Path(folder)
    for name in (beside, CARD):
        if not (source / name).is_file():
            raise DataError(f"no {name} in {source}: give a folder written by dartjax.data.{maker}")
    try:
        card = json.loads((source / CARD).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{source / CARD} is damaged ({error}): install dartjax again") from error
    missing = set(fields) - set(card) if isinstance(card, dict) else set(fields)
    if missing:
        lacking = ", ".join(sorted(missing))
        raise DataError(f"{source / CARD} lacks {lacking}: not the card of {what}")
    return card


def write_card(folder: pathlib.Path, card: dict[str, Any]) -> None:
    """Write the card of a folder."""
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
