"""Run experiments and commands: run folder, provenance, exit codes.

    def main(ctx: launch.RunContext, settings: Settings) -> None:
        ...
        ctx.save_metrics(ctx.record(...), summary, cases)

    if __name__ == "__main__":
        launch.run(main, Settings)

The fields of `Settings` are the flags of the experiment (see `setting`). The flags exist only while
`run` is active, so that any number of experiments can be imported together.

A run writes into a hidden sibling of its folder, which gets the final name when `main` has
returned (`_run_folder.py`). Under the final name there is therefore a complete run or nothing.
Ctrl-C and SIGTERM remove the hidden folder. Exit codes: 0 done, 1 the run failed, 2 bad usage or
bad input.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from absl import flags
from rich import progress as rich_progress
from rich.console import Console

from dartjax._errors import DataError
from dartjax.cli import _run_folder as run_folder
from dartjax.cli._job import Job, RunSettings, parsed
from dartjax.cli._output import allow_any_text, held_stdout
from dartjax.cli._settings import read_flags

_Settings = TypeVar("_Settings")

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PACKAGES = ("dartjax", "jax", "jaxlib", "numpy", "equinox", "optax", "flax")


@dataclasses.dataclass(frozen=True)
class RunContext:
    """Context of a run. `out` exists and is empty; write all files there."""

    seed: int
    preset: str
    out: pathlib.Path
    final_out: pathlib.Path  # path of `out` after the run is done
    config: Mapping[str, Any]
    _work: list[pathlib.Path] = dataclasses.field(default_factory=list)

    def remove_when_done(self, work: pathlib.Path) -> None:
        """Remove a folder of intermediate results once this run has its final name, not before:
        a run that is killed until then continues from it."""
        self._work.append(work)

    def record(
        self,
        *,
        dataset: str,
        dataset_kind: str,
        subjects: Sequence[str],
        n_vertebrae: int,
        ssm_excludes: Sequence[str],
        nsd_tolerance_mm: float | None,
        ssm_leak: bool = False,
    ) -> dict[str, Any]:
        """Make the record of a result file, with seed, commit and preset filled in."""
        from dartjax.data import ids_hash  # noqa: PLC0415
        from dartjax.report import check_record  # noqa: PLC0415

        return check_record(
            {
                "dataset": dataset,
                "dataset_kind": dataset_kind,
                "ids_hash": ids_hash(subjects),
                "n_subjects": len(set(subjects)),
                "n_vertebrae": n_vertebrae,
                "ssm_excludes": list(ssm_excludes),
                "ssm_leak": ssm_leak,
                "seed": self.seed,
                "commit": self.config["commit"],
                "preset": self.preset,
                "nsd_tolerance_mm": nsd_tolerance_mm,
            }
        )

    def save_metrics(
        self,
        record: Mapping[str, Any],
        summary: Mapping[str, Any],
        cases: Sequence[Mapping[str, Any]],
        *,
        verse_small_ids_hash: str | None = None,
    ) -> pathlib.Path:
        """Write metrics.json; `report.metrics_text` describes its rules."""
        from dartjax.report import metrics_text  # noqa: PLC0415

        text = metrics_text(record, summary, cases, verse_small_ids_hash=verse_small_ids_hash)
        path = self.out / "metrics.json"
        path.write_text(text, encoding="utf-8")
        return path


def run(
    main: Callable[[RunContext, _Settings], int | None],
    settings_type: type[_Settings],
    argv: Sequence[str] | None = None,
    *,
    presets: Sequence[str] = ("default",),
    join: Callable[[_Settings, RunSettings], int] | None = None,
) -> NoReturn:
    """Read the settings from the command line, run `main` in a new run folder, and exit.

    `presets` are the allowed values of --preset. `join` is called before the first use of JAX: an
    experiment with several processes connects them there and returns the number of this process;
    only process 0 keeps its run folder. An integer that `main` returns is the exit code, and the
    run folder is kept. After an exception, the files written so far and error.log are kept in
    <out>.failed.
    """
    program, *arguments = list(sys.argv if argv is None else argv)
    job = Job(
        name=_experiment_name(main, program),
        program=(program,),
        settings=settings_type,
        load_main=lambda: main,
        help=(sys.modules[main.__module__].__doc__ or "").strip(),
        presets=presets,
        join=join,
    )
    start(job, arguments)


def start(job: Job, arguments: Sequence[str]) -> NoReturn:
    """Read the settings of a job from its arguments, run it, and exit; see `run`."""
    allow_any_text()
    try:
        values = parsed(job, arguments)
        settings = read_flags(job.settings, values)
    except (flags.Error, DataError) as error:
        stop(2, f"{error}\n{job.hint}")
    if job.run_settings is None:
        _run_alone(job, settings)
    _run_in_folder(job, arguments, values, settings, read_flags(job.run_settings, values))


def stop(code: int, message: str) -> NoReturn:
    """Exit the process with one message on stderr."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _run_alone(job: Job, settings: Any) -> NoReturn:
    """Run a command that writes no run folder."""
    try:
        code = job.load_main()(settings) or 0
    except (flags.Error, DataError, FileNotFoundError) as error:
        stop(2, str(error))
    except BrokenPipeError:  # `dartjax info X | head`
        raise
    except Exception as error:
        traceback.print_exc()  # an error of dartjax, and there is no folder for a log
        stop(1, f"dartjax {job.name} failed: {type(error).__name__}")
    sys.exit(code)


def _run_in_folder(
    job: Job, arguments: Sequence[str], values: flags.FlagValues, settings: Any, common: RunSettings
) -> NoReturn:
    """Run a job in a new run folder."""
    with contextlib.ExitStack() as stack:
        try:
            process = job.join(settings, common) if job.join else 0
            final = _final_path(job.name, common)
            if process:
                final = final.with_name(f"{final.name}.process{process}")
            run_folder.check_final(final, overwrite=common.overwrite)
            partial = stack.enter_context(run_folder.partial_folder(final))
        except (flags.Error, DataError) as error:
            stop(2, f"{error}\n{job.hint}")
        _enable_compile_cache()
        try:
            stack.enter_context(held_stdout())
            stack.enter_context(_removed_on_sigterm(partial))
            config = _write_config(job, arguments, values, partial)
            ctx = RunContext(common.seed, common.preset, partial, final, config)
            code = job.load_main()(ctx, settings) or 0
            if not process:
                _finish(ctx, overwrite=common.overwrite)
        except (flags.Error, DataError, FileNotFoundError) as error:
            stop(2, str(error))
        except Exception as error:
            log = run_folder.keep_failure(partial, final)
            reason = str(error).strip().split("\n")[0]
            stop(1, f"the run failed: {type(error).__name__}: {reason}\nfull traceback in {log}")
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    if not process:
        print(f"Results: {final}")
    sys.exit(code)


@contextlib.contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show the progress of a stage on stderr: a bar on a terminal, plain lines elsewhere.

    Yields `step(note="")`, to be called after each of `total` parts.
    """
    if sys.stderr.isatty():
        yield from _bar(title, total)
    else:
        yield from _lines(title, total)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    Console(stderr=True).print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)


def _bar(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    columns = (
        rich_progress.SpinnerColumn(),
        "{task.description}",
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        "{task.fields[note]}",
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total, note="")
        yield lambda note="": bars.update(task, advance=1, note=note)


def _lines(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    started, count = time.monotonic(), 0

    def line(text: str) -> None:
        print(f"{title}: {text} ({time.monotonic() - started:.1f} s)", file=sys.stderr, flush=True)

    def step(note: str = "") -> None:
        nonlocal count
        count += 1
        line(f"{count}{f'/{total}' if total else ''} {note}".rstrip())

    line("started")
    yield step
    line("done")


def _experiment_name(main: Callable[..., Any], program: str) -> str:
    """Return the name of an experiment: `reconstruct` for experiments.reconstruct.__main__."""
    module = main.__module__
    if module == "__main__":
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        module = spec.name if spec else ""
    name = module.removesuffix(".__main__").rpartition(".")[2]
    return name or pathlib.Path(program).stem


def _final_path(name: str, common: RunSettings) -> pathlib.Path:
    """Return the path of the run folder."""
    now = f"{datetime.datetime.now():%Y%m%d-%H%M%S}"
    return pathlib.Path(common.out or f"runs/{name}-{now}").absolute()


def _finish(ctx: RunContext, *, overwrite: bool) -> None:
    """Publish a run, then remove its intermediate results."""
    run_folder.publish(ctx.out, ctx.final_out, overwrite=overwrite)
    for work in ctx._work:
        run_folder.remove_work(work, ctx.final_out)


@contextlib.contextmanager
def _removed_on_sigterm(partial: pathlib.Path) -> Iterator[None]:
    """Remove the hidden folder when SIGTERM ends the process.

    An exception instead could be swallowed where Python ignores exceptions. A handler that somebody
    else has installed stays.
    """
    is_free = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not is_free or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        shutil.rmtree(partial, ignore_errors=True)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _write_config(
    job: Job, arguments: Sequence[str], values: flags.FlagValues, partial: pathlib.Path
) -> dict[str, Any]:
    """Write config.json, which has everything needed to repeat the run."""
    config = {
        "experiment": job.title,
        "command": [*job.program, *arguments],
        "flags": {flag: values[flag].value for flag in values if flag not in ("help", "h")},
        "commit": commit(),
        "versions": {name: version(name) for name in _PACKAGES},
        "machine": _machine(),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    text = json.dumps(config, indent=1, default=str)
    (partial / "config.json").write_text(text + "\n", encoding="utf-8")
    return config


def commit() -> str:
    """Return the commit hash, with "-dirty" if tracked files changed; outside git the version."""
    if _git("rev-parse", "--show-toplevel") != str(_ROOT):
        return f"dartjax-{version('dartjax')}"
    dirty = _git("status", "--porcelain", "--untracked-files=no")
    return (_git("rev-parse", "HEAD") or "no commit") + ("-dirty" if dirty else "")


def _git(*arguments: str) -> str:
    try:
        command = ["git", "-C", str(_ROOT), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def version(package: str) -> str:
    """Return the version of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _machine() -> dict[str, Any]:
    import jax  # noqa: PLC0415  (slow, and not needed before the run)

    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
    }


def _enable_compile_cache() -> None:
    """Cache compiled programs between runs, in $DARTJAX_CACHE/xla or ~/.cache/dartjax/xla."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # the user has chosen a folder
        return
    import jax  # noqa: PLC0415

    from dartjax.data import cache_folder  # noqa: PLC0415

    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
