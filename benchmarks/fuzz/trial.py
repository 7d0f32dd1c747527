"""Give one damaged file to its reader, under limits of time and memory, and judge the answer."""

import contextlib
import pathlib
import resource
import signal
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks.fuzz import documents, mutations
from benchmarks.fuzz.mutations import Form, Mutation
from benchmarks.fuzz.readers import Reader, Value

SECONDS = 10.0
MEMORY_BYTES = 2 * 1024**3
_BYTES_SHARE = 0.4  # of the mutations of a document that damage bytes, not its structure
_RUBBISH_SHARE = 0.04
_ENCODING_SHARE = 0.1

_STRUCTURE = {
    "json": documents.damaged_json,
    "table": documents.damaged_table,
    "text": documents.damaged_text,
    "split": documents.damaged_text,
    "xml": documents.damaged_xml,
}


class Verdict(NamedTuple):
    """Judgement of one mutation: "right", "refused", or "failure" with the reason."""

    result: str
    reason: str = ""
    details: str = ""


class _TooSlow(BaseException):
    """The reader takes too long. Not an Exception, so that no reader can catch it."""


class Trial:
    """Readers with their valid files in a folder, and the values of these files."""

    def __init__(self, readers: list[Reader], folder: pathlib.Path) -> None:
        self.readers = readers
        self.folders = [folder / f"{number:02d}" for number in range(len(readers))]
        self.values: dict[int, Value] = {}
        for reader, place in zip(readers, self.folders, strict=True):
            place.mkdir(parents=True)
            reader.make(place)

    def mutation(self, seed: int, index: int) -> tuple[int, pathlib.Path, Mutation]:
        """Return the reader, file and damage with this index: they depend on nothing else."""
        rng = np.random.default_rng((seed, index))
        number = index % len(self.readers)
        reader = self.readers[number]
        names = sorted(reader.files)
        name = names[rng.integers(len(names))]
        path = self.folders[number] / name
        found = _mutate(rng, path.read_bytes(), reader.files[name], reader.takes_any_text)
        return number, path, found._replace(expects="same") if reader.repairs else found

    def judge(self, number: int, path: pathlib.Path, mutation: Mutation) -> Verdict:
        """Read the damaged file and judge the answer; the valid file is restored."""
        reader = self.readers[number]
        if number not in self.values:
            self.values[number] = _copied(reader.read(self.folders[number]))
        valid = path.read_bytes()
        try:
            _replace(path, mutation.content)
            return _judge(reader, self.folders[number], path, mutation, self.values[number])
        finally:
            _replace(path, valid)


def limit_memory() -> None:
    """Let this process allocate 2 GB more than now; more raises MemoryError."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (x for x in status.splitlines() if x.startswith("VmData:"))
    most = int(line.split()[1]) * 1024 + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _mutate(rng: np.random.Generator, content: bytes, form: Form, takes_any: bool) -> Mutation:
    if rng.random() < _RUBBISH_SHARE and not takes_any:
        return mutations.rubbish(rng, content)
    if form in ("nifti", "nifti.gz"):
        return _mutate_nifti(rng, content, form)
    if form in ("binary", "checked"):
        return mutations.damage(rng, content, "sound" if form == "binary" else "same or refused")
    choice = rng.random()
    if choice < _ENCODING_SHARE and not takes_any:
        return mutations.renamed_encoding(rng, content)
    return (
        mutations.damage(rng, content) if choice < _BYTES_SHARE else _STRUCTURE[form](rng, content)
    )


def _mutate_nifti(rng: np.random.Generator, content: bytes, form: Form) -> Mutation:
    choice = rng.random()
    if form == "nifti":
        change = mutations.header_field if choice < 0.5 else mutations.damage
        return change(rng, content)
    if choice < _ENCODING_SHARE:
        return mutations.recompressed(rng, content)
    if choice < 0.6:
        return mutations.behind_gzip(rng, content)
    return mutations.damage(rng, content, "same or refused")


def _judge(
    reader: Reader, folder: pathlib.Path, path: pathlib.Path, mutation: Mutation, valid: Value
) -> Verdict:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with _time_limit(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = reader.read(folder)
    except reader.refusals as error:
        if mutation.expects == "same":
            return Verdict("failure", "valid file refused", str(error))
        named = str(folder) in str(error) or path.name in str(error)
        return Verdict("refused") if named else Verdict("failure", "file not named", str(error))
    except _TooSlow:
        return Verdict("failure", f"over {SECONDS:g} s", traceback.format_exc())
    except Exception as error:
        return Verdict("failure", type(error).__name__, traceback.format_exc())
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    if growth * 1024 > MEMORY_BYTES:
        return Verdict("failure", "over 2 GB", f"{growth / 1024:.0f} MB")
    warned = [str(w.message) for w in caught if w.category is UserWarning]
    return _judge_value(reader, mutation, _copied(value), valid, warned)


def _judge_value(
    reader: Reader, mutation: Mutation, value: Value, valid: Value, warned: list[str]
) -> Verdict:
    if mutation.expects == "refused":
        return Verdict("failure", "not refused", repr(value)[:2000])
    if problem := _unsound(reader, value, valid):
        return Verdict("failure", "unsound value", problem)
    if mutation.expects != "sound" and not warned and not _equal(value, valid):
        return Verdict("failure", "value differs", f"{value!r}"[:2000])
    return Verdict("right")


def _unsound(reader: Reader, value: Value, valid: Value) -> str:
    """Return what is wrong with a value of any content, or ""."""
    for name, part in value.items():
        array = np.asarray(part)
        infinite_allowed = any(word in name for word in reader.may_be_infinite)
        if array.dtype.kind == "f" and not infinite_allowed and not np.isfinite(array).all():
            return f"{name} has NaN or infinite numbers"
        if infinite_allowed and array.dtype.kind == "f" and np.isnan(array).any():
            return f"{name} has NaN"
        if name in valid and not isinstance(part, str):
            expected = np.asarray(valid[name])
            if (array.dtype, array.ndim) != (expected.dtype, expected.ndim):
                return f"{name} is {array.dtype} with {array.ndim} axes, not {expected.dtype}"
    return reader.problem(value)


def _equal(value: Value, valid: Value) -> bool:
    return value.keys() == valid.keys() and all(
        np.array_equal(np.asarray(value[name]), np.asarray(valid[name])) for name in valid
    )


def _copied(value: Value) -> Value:
    """Copy arrays out of files that are mapped into memory and will be replaced."""
    return {k: v if isinstance(v, str) else np.array(v) for k, v in value.items()}


def _replace(path: pathlib.Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # an earlier content may still be mapped into memory
    path.write_bytes(content)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooSlow

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, earlier)
