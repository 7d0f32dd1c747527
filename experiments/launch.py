"""The one entry of every experiment: flags, the run folder, provenance, exit codes.

    def main(ctx: launch.RunContext) -> None:
        ...
        ctx.save_metrics(ctx.record(...), summary, cases)

    if __name__ == "__main__":
        launch.run(main)

A run writes into a hidden sibling of its folder, which takes the final name only when `main`
has returned: under the final name there is a whole run or nothing. Exit codes: 0 done, 1 the
run failed, 2 bad usage or bad input.
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
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
from absl import flags
from rich import progress as rich_progress
from rich.console import Console

from dartjax.data import DataError, cache_folder, ids_hash
from experiments import results

_SEED = flags.DEFINE_integer("seed", 0, "Seed of everything random in the run.")
_OUT = flags.DEFINE_string(
    "out", None, "Run folder to make. Default: runs/<experiment>-<date>-<time>."
)
_PRESET = flags.DEFINE_string("preset", "default", "Named configuration of the experiment.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier run of the same --out.")
flags.DEFINE_bool("help", False, "Show this help.", short_name="h")

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PACKAGES = ("dartjax", "jax", "jaxlib", "numpy", "equinox", "optax", "flax")


@dataclasses.dataclass(frozen=True)
class RunContext:
    """What an experiment is given. `out` exists and is empty; write every file there."""

    seed: int
    preset: str
    out: pathlib.Path
    final_out: pathlib.Path  # where `out` will be once the run is done
    config: Mapping[str, Any]

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
        """The record of a result file, with seed, commit and preset filled in."""
        return results.check_record(
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
        """Write metrics.json; see `results.metrics_text` for the rules it keeps."""
        text = results.metrics_text(
            record, summary, cases, verse_small_ids_hash=verse_small_ids_hash
        )
        path = self.out / "metrics.json"
        path.write_text(text, encoding="utf-8")
        return path


def run(
    main: Callable[[RunContext], int | None],
    argv: Sequence[str] | None = None,
    *,
    presets: Sequence[str] = ("default",),
    join: Callable[[], int] = lambda: 0,
) -> NoReturn:
    """Parse the flags, run `main` in a fresh run folder, and leave the process.

    `presets` are the names --preset takes. `join` is called before the first use of JAX: an
    experiment of several processes joins them there and returns the number of this one; the run
    folder is left by process 0 alone. An integer that `main` returns becomes the exit
    code of a run whose folder is kept; an exception keeps what was written, with error.log,
    in <out>.failed.
    """
    arguments = list(sys.argv if argv is None else argv)
    try:
        _parse(arguments, presets)
        process = join()
        final = _final_folder(arguments[0])
        if process:
            final = final.with_name(f"{final.name}.process{process}")
        partial = _make_partial(final)
    except (flags.Error, DataError) as error:
        _stop(2, f"{error}\n(--help lists the flags)")
    _enable_compile_cache()
    try:
        code = main(_start(arguments, partial, final)) or 0
        shutil.rmtree(partial) if process else _publish(partial, final)
    except (flags.Error, DataError, FileNotFoundError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        _stop(2, str(error))
    except (KeyboardInterrupt, SystemExit):
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except Exception as error:
        log = _keep_failure(partial, final)
        reason = str(error).strip().split("\n")[0]
        _stop(1, f"the run failed: {type(error).__name__}: {reason}\nfull trace in {log}")
    if not process:
        print(f"Results: {final}")
    sys.exit(code)


@contextlib.contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Progress of a stage: yields `step(note="")`, to be called after each of `total` parts.

    A bar on a terminal, plain lines elsewhere, both on stderr.
    """
    if sys.stderr.isatty():
        yield from _bar(title, total)
    else:
        yield from _lines(title, total)


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


def _stop(code: int, message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _parse(arguments: list[str], presets: Sequence[str]) -> None:
    """Read the flags; flags.Error says what is wrong. --help prints the help and leaves."""
    if {"--help", "-help", "--h", "-h"} & set(arguments):
        print(_help_text(arguments[0], presets))
        sys.exit(0)
    rest = flags.FLAGS(arguments)[1:]
    if rest:
        raise flags.Error(f"unexpected argument {rest[0]!r}: flags are written --name=value")
    if _PRESET.value not in presets:
        raise flags.Error(f"unknown --preset={_PRESET.value}: choose one of {', '.join(presets)}")


def _help_text(program: str, presets: Sequence[str]) -> str:
    own, common = _flags_of_experiments(program)
    return "\n\n".join(
        [
            (sys.modules["__main__"].__doc__ or "").strip(),
            "Flags of this experiment:\n" + ("\n".join(map(_help_line, own)) or "  none"),
            "Flags of every experiment:\n" + "\n".join(map(_help_line, common)),
            f"Presets: {', '.join(presets)}",
        ]
    )


def _help_line(flag: flags.Flag) -> str:
    name = flag.name if flag.boolean else f"{flag.name}={flag.name.upper()}"
    default = f"  (default: {flag.default})" if flag.default is not None else ""
    return f"  --{name}{default}\n      {' '.join((flag.help or '').split())}"


def _flags_of_experiments(program: str) -> tuple[list[flags.Flag], list[flags.Flag]]:
    """Flags of the experiment (and modules it shares), and those of this module. What absl
    and other libraries define is left out."""
    common, own = [], []
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module == __name__:
            common += defined
        elif module in (program, "__main__") or module.startswith("experiments."):
            own += defined
    return own, common


def _experiment_name(program: str) -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name.rpartition(".")[2] if spec else ""
    return name if name not in ("", "__main__") else pathlib.Path(program).stem


def _final_folder(program: str) -> pathlib.Path:
    """The run folder's final path; DataError if something stands there already."""
    now = f"{datetime.datetime.now():%Y%m%d-%H%M%S}"
    final = pathlib.Path(_OUT.value or f"runs/{_experiment_name(program)}-{now}").absolute()
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return final
    if not _OVERWRITE.value:
        raise DataError(f"{final} exists: choose another --out, or add --overwrite to replace it")
    if not (final / "config.json").is_file():
        raise DataError(f"{final} is no run folder (it has no config.json): it is not overwritten")
    return final


def _make_partial(final: pathlib.Path) -> pathlib.Path:
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"--out={final} cannot be made: {error.strerror}") from error
    return partial


def _publish(partial: pathlib.Path, final: pathlib.Path) -> None:
    if not (_OVERWRITE.value and final.exists()):
        partial.rename(final)
        return
    earlier = final.with_name(f".{final.name}.{os.getpid()}.earlier")
    final.rename(earlier)
    partial.rename(final)
    shutil.rmtree(earlier)


def _keep_failure(partial: pathlib.Path, final: pathlib.Path) -> pathlib.Path:
    """Move what a failed run wrote, with its trace, to <out>.failed."""
    (partial / "error.log").write_text(traceback.format_exc(), encoding="utf-8")
    failed = final.with_name(f"{final.name}.failed")
    shutil.rmtree(failed, ignore_errors=True)
    partial.rename(failed)
    return failed / "error.log"


def _start(arguments: list[str], partial: pathlib.Path, final: pathlib.Path) -> RunContext:
    own, common = _flags_of_experiments(arguments[0])
    config = {
        "experiment": _experiment_name(arguments[0]),
        "command": arguments,
        "flags": {flag.name: flag.value for flag in own + common if flag.name != "help"},
        "commit": commit(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "machine": _machine(),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    text = json.dumps(config, indent=1, default=str)
    (partial / "config.json").write_text(text + "\n", encoding="utf-8")
    return RunContext(_SEED.value, _PRESET.value, partial, final, config)


def commit() -> str:
    """Hash of the checkout with "-dirty" if tracked files changed; outside git the version."""
    if _git("rev-parse", "--show-toplevel") != str(_ROOT):
        return f"dartjax-{_version('dartjax')}"
    dirty = _git("status", "--porcelain", "--untracked-files=no")
    return (_git("rev-parse", "HEAD") or "no commit") + ("-dirty" if dirty else "")


def _git(*arguments: str) -> str:
    try:
        command = ["git", "-C", str(_ROOT), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _machine() -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
    }


def _enable_compile_cache() -> None:
    """Keep compiled programs between runs, in $DARTJAX_CACHE/xla or ~/.cache/dartjax/xla."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # the user has chosen a folder
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
