"""Two tiny commands, started by test_console.py: one with a run folder, one without."""

import dataclasses

from dartjax._errors import DataError
from dartjax.cli import launch, setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is counted."""

    words: tuple[str, ...] = setting((), "Words to count.", positional=True)
    end: str = setting("done", "How to end.", choices=("done", "bad_input", "raise"))


def count(ctx: launch.RunContext, settings: Settings) -> None:
    """Write how many words there are, in a run folder."""
    _end(settings.end)
    (ctx.out / "count.txt").write_text(f"{len(settings.words)} {ctx.seed}")


def show(settings: Settings) -> int:
    """Print how many words there are."""
    _end(settings.end)
    print(len(settings.words))
    return 0


def _end(end: str) -> None:
    if end == "bad_input":
        raise DataError("words.txt: line 3 is empty; fill it")
    if end == "raise":
        raise RuntimeError("words fail")
