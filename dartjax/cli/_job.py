"""What can be started, an experiment or a command of `dartjax`, and how its arguments are read."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from absl import flags

from dartjax._errors import DataError
from dartjax.cli._settings import define_flags, positional_field, preload, setting, shown_fields


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What every experiment can be told."""

    seed: int = setting(0, "Seed of everything random in the run.")
    out: str | None = setting(None, "Run folder to make. Default: runs/<experiment>-<date>-<time>.")
    preset: str = setting("default", "Named configuration of the experiment.")
    overwrite: bool = setting(False, "Replace an earlier run of the same --out.")
    config: str | None = setting(
        None, "config.json of an earlier run, to repeat it; flags given beside it count."
    )


@dataclasses.dataclass(frozen=True)
class CommandRunSettings(RunSettings):
    """What every command that makes a run folder can be told."""

    out: str | None = setting(None, "Run folder to make. Default: runs/<command>-<date>-<time>.")
    preset: str = setting("default", "The only configuration of a command.", hidden=True)


@dataclasses.dataclass(frozen=True)
class Job:
    """Something to start: its settings, where its main is, and how it explains itself.

    `load_main` imports the main when it is needed: `main(ctx, settings)` of a job that makes a
    run folder, `main(settings)` of one that has no `run_settings`.
    """

    name: str
    program: tuple[str, ...]  # how it was called, without its arguments
    settings: type
    load_main: Callable[[], Callable[..., int | None]]
    help: str
    kind: Literal["experiment", "command"] = "experiment"
    run_settings: type[RunSettings] | None = RunSettings
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of common flags
    presets: Sequence[str] = ("default",)
    join: Callable[[Any, RunSettings], int] | None = None

    @property
    def title(self) -> str:
        """What config.json calls it: commands and experiments may share a name."""
        return self.name if self.kind == "experiment" else f"dartjax {self.name}"

    @property
    def hint(self) -> str:
        """The last line of a message about wrong usage."""
        if self.kind == "experiment":
            return "(--help lists the flags)"
        return f"({' '.join(self.program)} --help explains the command)"


_OWN, _COMMON = "own", "common"
_NOT_REPEATED = ("out", "overwrite", "config", "help")


def parsed(job: Job, arguments: Sequence[str]) -> flags.FlagValues:
    """The flags as given; flags.Error or DataError says what is wrong. --help prints the help and
    leaves."""
    values = _defined(job)
    if {"--help", "-help", "--h", "-h"} & set(arguments):
        print(_help_text(job, values))
        sys.exit(0)
    rest = values([job.name, *arguments])[1:]
    positional = positional_field(job.settings)
    if rest and positional is None:
        raise flags.Error(f"unexpected argument {rest[0]!r}: flags are written --name=value")
    if job.run_settings is not None:
        _repeat_and_check(job, values)
    if positional is not None:
        _fill_positional(positional.name, rest, values)
    return values


def _defined(job: Job) -> flags.FlagValues:
    values = flags.FlagValues()
    define_flags(job.settings, values, _OWN)
    if job.run_settings is not None:
        define_flags(job.run_settings, values, _COMMON, job.defaults)
    flags.DEFINE_bool(
        "help", False, "Show this help.", short_name="h", flag_values=values, module_name=_COMMON
    )
    # Flags may follow file names.
    values.set_gnu_getopt(positional_field(job.settings) is not None)
    return values


def _repeat_and_check(job: Job, values: flags.FlagValues) -> None:
    """Take over the flags of an earlier run, if one is named; check the preset."""
    if (config := values["config"].value) is not None:
        preload(_earlier_flags(job.title, config), values, _NOT_REPEATED, f"this {job.kind}")
    if (preset := values["preset"].value) not in job.presets:
        raise flags.Error(f"unknown --preset={preset}: choose one of {', '.join(job.presets)}")


def _fill_positional(name: str, rest: Sequence[str], values: flags.FlagValues) -> None:
    """Plain arguments become the value of a setting, which may also come from a config.json."""
    if values[name].present:
        raise flags.Error(f"{name.upper()} are given as they are, without --{name}")
    if rest:
        values[name].value = list(rest)
    if not values[name].value:
        raise flags.Error(f"no {name.upper()} given: at least one is needed")


def _earlier_flags(title: str, path: str) -> dict[str, Any]:
    """The flags of an earlier run, from its config.json."""
    try:
        config = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        earlier, given = config["experiment"], dict(config["flags"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"--config={path} cannot be read ({error}): give the config.json of a finished run"
        ) from error
    if earlier != title:
        raise DataError(f"--config={path} is of {earlier}, this is {title}")
    return given


def _help_text(job: Job, values: flags.FlagValues) -> str:
    defined = values.flags_by_module_dict()
    shown = {field.name for field in shown_fields(job.settings)} | {"help"}
    if job.run_settings is not None:
        shown |= {field.name for field in shown_fields(job.run_settings)}
    own, common = (
        "\n".join(_help_line(flag) for flag in defined.get(part, []) if flag.name in shown)
        for part in (_OWN, _COMMON)
    )
    every = "every experiment" if job.kind == "experiment" else "every command"
    parts = [
        job.help,
        _positional_help(job),
        f"Flags of this {job.kind}:\n{own or '  none'}",
        f"Flags of {every}{_of_runs(job)}:\n{common}",
    ]
    if len(job.presets) > 1 or job.kind == "experiment":
        parts.append(f"Presets: {', '.join(job.presets)}")
    return "\n\n".join(part for part in parts if part)


def _of_runs(job: Job) -> str:
    return " that makes a run folder" if job.run_settings is CommandRunSettings else ""


def _positional_help(job: Job) -> str:
    field = positional_field(job.settings)
    if field is None:
        return ""
    return f"Arguments:\n  {field.name.upper()}\n      {field.metadata['help']}"


def _help_line(flag: flags.Flag) -> str:
    name = flag.name if flag.boolean else f"{flag.name}={flag.name.upper()}"
    default = f"  (default: {flag.default})" if flag.default is not None else ""
    return f"  --{name}{default}\n      {' '.join((flag.help or '').split())}"
