"""Write files, folders and data sets atomically, from one process or from many.

A unit of a data set is a folder (one scan, one block of views). It is written under a hidden
name, flushed to the disk and renamed. A process that is killed at any moment therefore leaves
complete units and at most one hidden folder, which the next run deletes. The result does not
depend on the order or number of runs.
"""

import contextlib
import errno
import fcntl
import glob
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from dartjax._documents import read_json as read_document
from dartjax._errors import DataError
from dartjax._locks import locked_if_free

_T = TypeVar("_T")
MANIFEST = "dataset.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def publish_folder(folder: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """Write a folder atomically: `write` fills a hidden sibling, which is renamed at the end.

    DataError when the disk is full; the partial folder is then removed.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with _full_disk_as_data_error(folder), _removed_on_failure(partial):
        partial.mkdir(parents=True)
        write(partial)
        for path in [*sorted(partial.rglob("*"), reverse=True), partial]:
            _flush(path)
        partial.rename(folder)
    _flush(folder.parent)


def publish_file(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """Write or replace a file atomically: `write` makes a hidden sibling, renamed at the end.

    Several processes may publish the same file; the last one wins. When writing fails, the partial
    file is removed, an earlier file is kept, and the error is raised unchanged. Partial files of
    processes that were killed are removed.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _removed_on_failure(partial):
        partial.touch()
        with locked_if_free(partial):
            write(partial)
            _flush(partial)
            partial.replace(path)
    _flush(path.parent)
    for other in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError), locked_if_free(other) as is_free:
            if is_free:
                other.unlink()


def publish_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically. ValueError for NaN or infinity, DataError for a full disk."""
    text = json_bytes(content)
    with _full_disk_as_data_error(path):
        publish_file(path, lambda partial: partial.write_bytes(text))


def publish_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed npz, atomically."""

    def write(partial: pathlib.Path) -> None:
        with partial.open("wb") as file:  # given a name without .npz, NumPy would append it
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]

    publish_file(path, write)


def remove_folder(folder: pathlib.Path) -> None:
    """Remove a folder; a process that is killed meanwhile leaves it whole or absent.

    What is left then is a hidden sibling, which the next call removes.
    """
    hidden = folder.with_name(f".{folder.name}.removed.partial")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Encode a JSON object with one line per key and per object in a list.

    Long lists of numbers stay compact. ValueError for NaN and infinity.
    """
    lines = [f"{json.dumps(key)}: {_json_value(value)}" for key, value in content.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _json_value(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return "[\n " + ",\n ".join(json.dumps(each, allow_nan=False) for each in value) + "\n]"
    return json.dumps(value, allow_nan=False)


@contextlib.contextmanager
def only_writer(folder: pathlib.Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a folder for this process and delete partial files that killed runs left in it.

    DataError if another process holds the lock, unless `wait` is set. The operating system
    releases the lock when the process ends, however it ends.
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
    """Parse a shard: "1/4" -> (1, 4), the second of four. DataError for anything else."""
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise DataError(f"shard {text!r} is not I/N: give I from 0 to N - 1, such as 0/4")
    return int(first), int(second)


def shard_of(items: Sequence[_T], shard: tuple[int, int]) -> list[_T]:
    """Return the items of shard (I, N): every N-th item, starting with item I."""
    index, count = shard
    return list(items[index::count])


def start_dataset(root: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a new data set, or check it against an existing one.

    DataError if the existing manifest differs (the message names the difference), and for a folder
    that holds other files. The manifest says `"finished": false` until every shard is finished.
    """
    started = {**manifest, "finished": False}
    with only_writer(root, wait=True):
        if not (root / MANIFEST).exists():
            if any(root.iterdir()):
                raise DataError(f"{root} holds other files but no {MANIFEST}: give an empty folder")
            publish_json(root / MANIFEST, started)
    there = read_json(root / MANIFEST)
    for key, value in json.loads(json_bytes(manifest)).items():
        if there.get(key) != value:
            difference = _difference(root, key, there.get(key), value)
            raise DataError(f"{difference}: use the same settings, or another folder")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON object of a data set. DataError when it cannot be read or is something else."""
    content = read_document(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: a JSON object is needed")
    return content


def shard_is_done(root: pathlib.Path, shard: tuple[int, int]) -> bool:
    """Return whether this run or an earlier one has finished a shard."""
    return _flag(root, shard).is_file()


def finish_shard(
    root: pathlib.Path, shard: tuple[int, int], merged: Callable[[], Mapping[str, Any]]
) -> bool:
    """Mark a shard as finished; after the last shard, add `merged()` to the manifest.

    Return whether the whole data set is finished.
    """
    flag = {"shard": "{}/{}".format(*shard), "finished": True}
    with only_writer(root, wait=True), only_writer(root / "shards", wait=True):
        if not shard_is_done(root, shard):  # else a kill came between flag and manifest
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
    return f"{root} was started with {key} = {there!r}, but now it is {here!r}"


@contextlib.contextmanager
def _removed_on_failure(partial: pathlib.Path) -> Iterator[None]:
    """Remove a partial file or folder when writing fails."""
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
    """Turn the error of a full disk into a DataError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DataError(
            f"no space left on the disk of {path.parent}: the files already written are complete; "
            "free some space and run the same command again to continue"
        ) from error


def _flush(path: pathlib.Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
