"""Timed batches of cases in one compiled program."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from dartjax.pipeline._task import Task
from dartjax.registration import map_cases, stack

# Cases in one compiled program, the same for every subject of a run: one per core on a CPU, which
# gains nothing from more, or enough to fill a GPU.
_CHUNK_GPU = 64


def run_cases(
    function: Callable[..., Any],
    *columns: Sequence[Any],
    step: Callable[[str], None],
    chunk: int | None = None,
    devices: Sequence[Any] | None = None,
) -> tuple[list[Any], float]:
    """Run `map_cases` and return the list of results, and the seconds after compilation. Every
    column holds one argument of all cases; `chunk` defaults to `chunk_size()`."""
    clock: list[float] = []

    def on_chunk(done: int, total: int) -> None:
        clock.append(time.monotonic())
        step(f"{done}/{total}" if done else "compiled")

    stacked = [stack(list(column)) for column in columns]
    size = chunk_size() if chunk is None else chunk
    found = map_cases(function, *stacked, chunk=size, devices=devices, on_chunk=on_chunk)
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(len(columns[0]))]
    return each, clock[-1] - clock[0]


def fit_arguments(tasks: Sequence[Task]) -> list[list[Any]]:
    """Collect the arguments of a fit for all tasks: models, observations and starts."""
    return [[getattr(task, key) for task in tasks] for key in ("model", "observations", "start")]


def chunk_size() -> int:
    """Return the number of cases in one compiled program."""
    return len(jax.local_devices()) if jax.default_backend() == "cpu" else _CHUNK_GPU
