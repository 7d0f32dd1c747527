"""Check the files of jobs that are killed: nothing half-written, nothing lost, nothing changed."""

import hashlib
import io
import json
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a checkpoint that is being written
_RUN_FILES = ("config.json", "metrics.json")


def files_of(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the files under their final names: neither hidden nor in a hidden or unfinished one."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not is_unfinished(path.relative_to(folder)):
            yield path


def is_unfinished(path: pathlib.Path) -> bool:
    """Return whether a relative path says by its name that it is not finished."""
    return any(part.startswith(".") or UNFINISHED in part for part in path.parts)


def leftovers(folder: pathlib.Path) -> list[str]:
    """List what killed processes left behind: hidden and unfinished files, by relative path."""
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")))
    return [path.as_posix() for path in paths if is_unfinished(path)]


def damaged_files(folder: pathlib.Path) -> list[str]:
    """List the files that cannot be read in full, with the reason."""
    found = []
    for path in files_of(folder):
        try:
            _read(path)
        except Exception as error:  # every reader has errors of its own
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            found.append(f"{path.relative_to(folder)}: {reason}")
    return found


def incomplete_run(run: pathlib.Path) -> list[str]:
    """List what a run folder lacks, if it exists under its final name."""
    if not run.exists():
        return []
    return [f"{run.name} has no {name}" for name in _RUN_FILES if not (run / name).is_file()]


def _read(path: pathlib.Path) -> None:
    suffix, content = path.suffix, path.read_bytes()
    if suffix == ".json":
        json.loads(content)
    elif suffix == ".npz":
        _arrays(content)
    elif suffix == ".npy":
        np.load(io.BytesIO(content), allow_pickle=False)
    elif suffix == ".png":
        from PIL import Image

        with Image.open(io.BytesIO(content)) as image:
            image.load()
    elif suffix == ".ply":
        import trimesh

        mesh: Any = trimesh.load(io.BytesIO(content), file_type="ply", process=False)
        if not len(mesh.faces):
            raise ValueError("no faces")
    elif suffix in (".md", ".html", ".tsv") and not content:
        raise ValueError("empty")


def damaged_checkpoint(work: pathlib.Path) -> list[str]:
    """Try to restore the checkpoint from which a training would continue; list what is wrong."""
    step = latest_step(work)
    if step is None:
        return []
    import orbax.checkpoint as ocp

    folder = (work / str(step)).absolute()
    try:
        json.loads((folder / "log" / "metadata").read_text())
        with ocp.StandardCheckpointer() as reader:
            for name in ("state", "best"):
                reader.restore(folder / name)
    except Exception as error:  # whatever orbax raises
        return [f"{work.name}/{step}: {type(error).__name__}: {str(error).splitlines()[0]}"]
    return []


def latest_step(work: pathlib.Path) -> int | None:
    """Return the step of the latest finished checkpoint."""
    return max((int(p.name) for p in work.glob("[0-9]*") if p.name.isdecimal()), default=None)


def contents(folder: pathlib.Path, volatile: Collection[str] = ()) -> dict[str, str]:
    """Hash every file below a folder, or one file; JSON without the keys that may differ.

    `volatile` are the keys of times and counts of this process, and names of whole files. An npz
    is hashed by its arrays.
    """
    if folder.is_file():
        return {folder.name: _digest(folder, volatile)}
    return {
        path.relative_to(folder).as_posix(): _digest(path, volatile)
        for path in files_of(folder)
        if path.name not in volatile
    }


def _digest(path: pathlib.Path, volatile: Collection[str]) -> str:
    content = path.read_bytes()
    try:
        if path.suffix == ".json":
            kept = _without(json.loads(content), volatile)
            content = json.dumps(kept, sort_keys=True).encode()
        elif path.suffix == ".npz":
            arrays = _arrays(content)
            parts = [f"{k} {a.dtype} {a.shape}".encode() + a.tobytes() for k, a in arrays.items()]
            content = b"".join(parts)
    except Exception as error:  # a damaged file differs from every other
        return f"damaged: {error}"
    return hashlib.sha256(content).hexdigest()


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name: stored[name] for name in sorted(stored.files)}


def _without(value: Any, volatile: Collection[str]) -> Any:
    """Drop volatile keys, and those that start with "seconds", at every depth."""
    if isinstance(value, dict):
        return {
            key: _without(each, volatile)
            for key, each in value.items()
            if key not in volatile and not key.startswith("seconds")
        }
    return [_without(each, volatile) for each in value] if isinstance(value, list) else value


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Compare two results of `contents`; list missing, additional and different files."""
    missing = [f"{name} is missing" for name in expected.keys() - found.keys()]
    more = [f"{name} is not in the reference" for name in found.keys() - expected.keys()]
    both = expected.keys() & found.keys()
    return sorted(missing + more + [f"{n} differs" for n in both if expected[n] != found[n]])


class Piece(NamedTuple):
    """A finished piece of a job: when it was written, and the hashes of its files."""

    written_ns: int
    files: dict[str, str]


def pieces_of(
    paths: Mapping[str, pathlib.Path], volatile: Collection[str] = ()
) -> dict[str, Piece]:
    """Hash the finished pieces of a job."""
    return {
        name: Piece(path.stat().st_mtime_ns, contents(path, volatile))
        for name, path in paths.items()
    }


def changes_of_pieces(
    before: Mapping[str, Piece],
    seen: Collection[str],
    now: Mapping[str, Piece],
    expected: Mapping[str, Piece],
) -> dict[str, list[str]]:
    """Name the pieces that are lost, done again, and different from the reference.

    `before` are the pieces at the last check; `seen` the names that were there at some time since.
    """
    stayed = before.keys() & now.keys()
    differ = [n for n in now if n not in expected or now[n].files != expected[n].files]
    return {
        "lost": sorted((before.keys() | set(seen)) - now.keys()),
        "done again": sorted(n for n in stayed if before[n].written_ns != now[n].written_ns),
        "differing": sorted(differ),
    }
