"""Run the mutations in a process of their own, which may hang or die."""

import itertools
import logging
import multiprocessing
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

_SILENT_S = 40.0  # without an answer, the process hangs outside of Python


class Found(NamedTuple):
    """Judgement of the mutation with this index."""

    index: int
    reader: str
    kind: str
    result: str  # "right", "refused" or "failure"
    reason: str
    details: str
    file: str
    content: bytes  # of a failure


def results(seed: int, reader: str, most: int | None, minutes: float) -> Iterator[Found]:
    """Yield the judgements, from a process that is started again when it dies or hangs.

    `reader` is a part of the names of the readers to try. The end is after `most` mutations or
    after `minutes`.
    """
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    first, count = 0, 0
    most = most or sys.maxsize
    while count < most:
        ours, theirs = context.Pipe()
        worker = context.Process(target=_work, args=(theirs, seed, reader, first), daemon=True)
        worker.start()
        theirs.close()
        try:
            for each in _received(ours, first):
                yield each
                first, count = each.index + 1, count + 1
                if count >= most or time.monotonic() - began > 60.0 * minutes:
                    return
        finally:
            worker.kill()
            worker.join()


def _received(connection: Connection, first: int) -> Iterator[Found]:
    """Yield judgements; the mutation that kills or stops the process is a failure and the last."""
    announced: tuple[Any, ...] = ()
    while True:
        reason = "the process hangs"
        if connection.poll(_SILENT_S):
            try:
                message = connection.recv()
                if isinstance(message, Found):
                    yield message
                else:
                    announced = message
                continue
            except EOFError:
                reason = "the process died"
        if not announced:
            raise RuntimeError(f"{reason} before mutation {first}")
        index, reader, kind, file, content = announced
        yield Found(index, reader, kind, "failure", reason, "", file, content)
        return


def _work(connection: Connection, seed: int, wanted: str, first: int) -> None:
    """Judge mutations from index `first` on, until this process is killed."""
    from benchmarks.fuzz import trial
    from benchmarks.fuzz.readers import all_readers

    logging.disable()  # nibabel and tifffile report every damaged header
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        trials = trial.Trial(all_readers(), pathlib.Path(folder))
        trial.limit_memory()
        for index in itertools.count(first):
            reader = trials.readers[index % len(trials.readers)].name
            if wanted not in reader:
                continue
            number, path, mutation = trials.mutation(seed, index)
            connection.send((index, reader, mutation.kind, path.name, mutation.content))
            verdict = trials.judge(number, path, mutation)
            content = mutation.content if verdict.result == "failure" else b""
            connection.send(Found(index, reader, mutation.kind, *verdict, path.name, content))
