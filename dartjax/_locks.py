"""Tell the hidden files of processes that work from those of processes that were killed.

The operating system releases a lock when its process ends, however it ends.
"""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def locked_if_free(path: pathlib.Path) -> Iterator[bool]:
    """Lock a file or folder; False if another process holds it, or if the file system has no
    locks."""
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
