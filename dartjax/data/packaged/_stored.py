"""Read arrays (without pickle) and cards that dartjax has written."""

import contextlib
import io
import json
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from dartjax._documents import read_json
from dartjax._errors import DataError
from dartjax.data._atomic import publish_arrays, publish_file
from dartjax.data.formats import UNREADABLE_ARRAYS, PathLike, list_of_texts

CARD = "card.json"
_LISTS = ("subjects_included", "never_seen", "features", "ct_hashes")


@contextlib.contextmanager
def open_arrays(
    file: PathLike, *, problem: str = "is damaged", remedy: str = "install dartjax again"
) -> Iterator[Any]:
    """Open the arrays of an npz by name, without pickle.

    An error while they are used (a damaged file, a missing name) becomes a DataError: the file
    and the `problem`, then the `remedy`.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            yield _Arrays(stored)
    except DataError:
        raise
    except UNREADABLE_ARRAYS as error:
        raise DataError(f"{file} {problem} ({error}): {remedy}") from error


class _Arrays(Mapping[str, np.ndarray]):
    """Arrays of an npz, each read whole, so that its checksum is compared. NumPy alone reads what
    the array's header says, and a damaged header may say less."""

    def __init__(self, stored: Any) -> None:
        self._zip = stored.zip
        self.files: list[str] = stored.files

    def __getitem__(self, name: str) -> np.ndarray:
        content = io.BytesIO(self._zip.read(f"{name}.npy"))
        return np.lib.format.read_array(content, allow_pickle=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


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
        card = read_json(source / CARD)
    except DataError as error:
        raise DataError(f"{source / CARD} is damaged ({error}): install dartjax again") from error
    missing = set(fields) - set(card) if isinstance(card, dict) else set(fields)
    if missing:
        lacking = ", ".join(sorted(missing))
        raise DataError(f"{source / CARD} lacks {lacking}: it is not the card of {what}")
    for name in set(_LISTS) & set(card):
        list_of_texts(f"{source / CARD}: {name}", card[name])
    return card


def write_stored(
    folder: PathLike,
    data_file: str,
    arrays: Mapping[str, np.ndarray],
    card: Mapping[str, Any],
) -> None:
    """Write the arrays of a folder and their card.

    An earlier card is removed first: a process that is killed meanwhile leaves no card, and never
    arrays with the card of others.
    """
    target = pathlib.Path(folder)
    (target / CARD).unlink(missing_ok=True)
    publish_arrays(target / data_file, arrays)
    text = json.dumps(card, indent=1) + "\n"
    publish_file(target / CARD, lambda partial: partial.write_text(text, encoding="utf-8"))
