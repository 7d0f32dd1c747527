"""The folder of a run: written under a hidden name, and renamed when the run is done.

    OUT                       a complete run, or nothing
    .OUT.PID.partial          a run that is being written, locked by its process
    .OUT.PID.earlier          an earlier run while --overwrite replaces it
    OUT.failed                files and error.log of a run that failed

The next start with the same OUT removes what killed processes left, and restores an earlier run
that was not replaced.
"""

import contextlib
import glob
import os
import pathlib
import shutil
import traceback
from collections.abc import Iterator

from dartjax._errors import DataError
from dartjax._locks import locked_if_free


def check_final(final: pathlib.Path, *, overwrite: bool) -> None:
    """Repair what killed runs left beside `final`; DataError if a run may not be written there."""
    _restore_earlier(final)
    _remove_abandoned(final)
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return
    if not overwrite:
        raise DataError(f"{final} exists: choose another --out, or add --overwrite to replace it")
    if not (final / "config.json").is_file():
        raise DataError(f"{final} is not a run folder (no config.json): it is not overwritten")


@contextlib.contextmanager
def partial_folder(final: pathlib.Path) -> Iterator[pathlib.Path]:
    """Make the hidden folder of a new run, locked while this process writes it.

    DataError if it cannot be made.
    """
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"--out={final} cannot be created: {error.strerror}") from error
    with locked_if_free(partial):
        yield partial


def publish(partial: pathlib.Path, final: pathlib.Path, *, overwrite: bool) -> None:
    """Give a complete run its final name. An earlier run is removed after that."""
    if not (overwrite and final.exists()):
        partial.rename(final)
        return
    earlier = final.with_name(f".{final.name}.{os.getpid()}.earlier")
    final.rename(earlier)
    try:
        partial.rename(final)
    except BaseException:  # also when the run is interrupted here
        if not final.exists():
            earlier.rename(final)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def keep_failure(partial: pathlib.Path, final: pathlib.Path) -> pathlib.Path:
    """Move the files of a failed run, with its traceback, to <out>.failed; return the log."""
    (partial / "error.log").write_text(traceback.format_exc(), encoding="utf-8")
    failed = final.with_name(f"{final.name}.failed")
    shutil.rmtree(failed, ignore_errors=True)
    partial.rename(failed)
    return failed / "error.log"


def remove_work(work: pathlib.Path, final: pathlib.Path) -> None:
    """Remove a folder of intermediate results, beside a published run.

    It is renamed first, so that under its own name it is complete or absent.
    """
    hidden = final.with_name(f".{final.name}.{os.getpid()}-work.partial")
    with contextlib.suppress(OSError):  # the run itself is done
        work.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _restore_earlier(final: pathlib.Path) -> None:
    for earlier in _siblings(final, "earlier"):
        if final.exists():
            shutil.rmtree(earlier, ignore_errors=True)
        else:
            earlier.rename(final)


def _remove_abandoned(final: pathlib.Path) -> None:
    """Remove the partial folders of processes that no longer exist, on this or another machine."""
    for partial in _siblings(final, "partial"):
        with contextlib.suppress(OSError), locked_if_free(partial) as is_free:
            if is_free:
                shutil.rmtree(partial, ignore_errors=True)


def _siblings(final: pathlib.Path, kind: str) -> list[pathlib.Path]:
    return sorted(final.parent.glob(f".{glob.escape(final.name)}.*.{kind}"))
