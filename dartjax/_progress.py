"""Progress callbacks for long computations. The library itself prints nothing."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

Step = Callable[[str], None]  # called with a note after each part of a stage


@runtime_checkable
class Progress(Protocol):
    """Context manager of one stage of `total` parts; call the yielded function after each part."""

    def __call__(
        self, title: str, total: int | None = None
    ) -> AbstractContextManager[Callable[..., None]]:
        """Open a stage."""
        ...


def no_step(note: str = "") -> None:
    """A silent `Step`."""


@contextlib.contextmanager
def no_progress(title: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A silent `Progress`."""
    yield no_step
