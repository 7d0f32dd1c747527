"""How long work tells its caller how far it has come. The library itself prints nothing."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

Step = Callable[[str], None]  # called after each part of a stage, with a note


@runtime_checkable
class Progress(Protocol):
    """Opens a stage of `total` parts; what it yields is called after each part."""

    def __call__(
        self, title: str, total: int | None = None
    ) -> AbstractContextManager[Callable[..., None]]:
        """See the class."""
        ...


def no_step(note: str = "") -> None:
    """A `Step` that says nothing."""


@contextlib.contextmanager
def no_progress(title: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A `Progress` that says nothing."""
    yield no_step
