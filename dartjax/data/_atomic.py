"""Files and folders that are there whole or not at all, and data sets made of such folders by many
processes at once.

A unit of a data set is a folder (one scan, one block of views). It is written under a hidden
name, flushed to the disk and renamed, so a process killed at any moment leaves whole units and
at most one hidden folder, which the next run throws away. Nothing here depends on the order or
number of runs.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from dartjax._errors import DataError

_T = TypeVar("_T")
MANIFEST = "dataset.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def publish_folder(folder: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """Make `folder` whole: `write` fills a hidden sibling, which takes the name at the end.

    DataError when the disk is full; nothing is left then.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with _full_disk_as_data_error(folder), _nothing_left_behind(partial):
        partial.mkdir(parents=True)
        write(partial)
        for path in [*sorted(partial.iterdir()), partial]:
            _flush(path)
        partial.rename(folder)
    _flush(folder.parent)


def publish_file(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """Write or replace a file at once: `write` makes a hidden sibling, which takes the name at
    the end.

    Processes that publish the same file do not disturb each other: the last one stands. When
    writing fails nothing is left, an earlier file stays, and the error is raised as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _nothing_left_behind(partial):
        write(partial)
        _flush(partial)
        partial.replace(path)
    _flush(path.parent)


def publish_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """`publish_file` of a JSON object; NaN and infinity are rejected. DataError when the disk is
    full."""
    text = json_bytes(content)
    with _full_disk_as_data_error(path):
        publish_file(path, lambda partial: partial.write_bytes(text))


def publish_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """`publish_file` of named arrays as a compressed npz."""

    def write(partial: pathlib.Path) -> None:
        with partial.open("wb") as file:  # to a name without .npz NumPy would add it
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]

    publish_file(path, write)


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """A JSON object as text, one line for every key and for every object in a list, so that
    long lists of numbers stay compact. ValueError for NaN and infinity."""
    lines = [f"{json.dumps(key)}: {_json_value(value)}" for key, value in content.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _json_value(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return "[\n " + ",\n ".join(json.dumps(each, allow_nan=False) for each in value) + "\n]"
    return json.dumps(value, allow_nan=False)


@contextlib.contextmanager
def only_writer(folder: pathlib.Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder for this process and clear it of what killed runs left half-written.

    DataError if another process holds it, unless told to wait. The system lets go of the folder
    when the process ends, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        for path in folder.glob(".*.partial"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield
    except BlockingIOError as error:
        raise DataError(
            f"{folder} is being written by another process: wait for it, or give each process "
            "a shard of its own, such as 0/2 and 1/2"
        ) from error
    finally:
        os.close(handle)


def parse_shard(text: str) -> tuple[int, int]:
    """ "1/4" -> (1, 4): the second of four. DataError for anything else."""
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise DataError(f"shard {text!r}: write I/N with I from 0 to N - 1, such as 0/4")
    return int(first), int(second)


def shard_of(items: Sequence[_T], shard: tuple[int, int]) -> list[_T]:
    """Every N-th item from the I-th on."""
    index, count = shard
    return list(items[index::count])


def start_dataset(root: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a new data set, or check that the one there is the same.

    DataError that names what differs, so that no folder holds a mixture, and for a folder with
    other things in it. The manifest says `"finished": false` until `finish_shard` has seen all.
    """
    started = {**manifest, "finished": False}
    with only_writer(root, wait=True):
        if not (root / MANIFEST).exists():
            if any(root.iterdir()):
                raise DataError(f"{root} holds other files and no {MANIFEST}: give a fresh folder")
            publish_json(root / MANIFEST, started)
    there = read_json(root / MANIFEST)
    for key, value in json.loads(json_bytes(manifest)).items():
        if there.get(key) != value:
            difference = _difference(root, key, there.get(key), value)
            raise DataError(f"{difference}: use the same, or another folder")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object of a data set; DataError when it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error


def shard_is_done(root: pathlib.Path, shard: tuple[int, int]) -> bool:
    """Whether a shard has been finished by this or an earlier run."""
    return _flag(root, shard).is_file()


def finish_shard(
    root: pathlib.Path, shard: tuple[int, int], merged: Callable[[], Mapping[str, Any]]
) -> bool:
    """Flag a shard as finished; when it was the last, add `merged()` to the manifest.

    True if the whole data set is finished.
    """
    flag = {"shard": "{}/{}".format(*shard), "finished": True}
    with only_writer(root, wait=True), only_writer(root / "shards", wait=True):
        publish_json(_flag(root, shard), flag)
        if not all(shard_is_done(root, (index, shard[1])) for index in range(shard[1])):
            return False
        publish_json(root / MANIFEST, {**read_json(root / MANIFEST), **merged(), "finished": True})
    return True


def _flag(root: pathlib.Path, shard: tuple[int, int]) -> pathlib.Path:
    return root / "shards" / "{}-of-{}.json".format(*shard)


def _difference(root: pathlib.Path, key: str, there: Any, here: Any) -> str:
    if isinstance(there, dict) and isinstance(here, dict):
        names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        key, there, here = f"{key}.{names[0]}", there.get(names[0]), here.get(names[0])
    return f"{root} was begun with {key} = {there!r}, now it is {here!r}"


@contextlib.contextmanager
def _nothing_left_behind(partial: pathlib.Path) -> Iterator[None]:
    """Remove a half-written file or folder when writing fails."""
    try:
        yield
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _full_disk_as_data_error(path: pathlib.Path) -> Iterator[None]:
    """Say what to do when there is no space for a file or folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DataError(
            f"no space left for {path.parent}: what is written there is whole; free some "
            "space and run the same command again to go on"
        ) from error


def _flush(path: pathlib.Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
