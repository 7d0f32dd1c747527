"""What a job prints: after its results are written, and on any terminal."""

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any


def allow_any_text() -> None:
    """Let a terminal that is not UTF-8 show other characters as escapes, so that a message, such
    as the path of a folder, cannot fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def held_stdout() -> Iterator[None]:
    """Hold back what is printed on stdout until the block ends, however it ends.

    A closed pipe or a full disk behind stdout can then not destroy the results of a run.
    """
    stream = sys.stdout
    held = _Held(stream)
    try:
        with contextlib.redirect_stdout(held):
            yield
    finally:
        stream.write(held.getvalue())
        stream.flush()


class _Held(io.StringIO):
    """Text for a stream, with the stream's own answers about the terminal."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return getattr(self._stream, "encoding", None) or "utf-8"
