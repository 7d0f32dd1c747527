"""Describe a job (an experiment or a command of `dartjax`) and read its arguments."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from absl import flags

from dartjax._documents import read_json
from dartjax._errors import DataError
from dartjax.cli._settings import define_flags, positional_field, preload, setting, shown_fields


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Settings of every experiment."""

    seed: int = setting(0, "Seed of all random numbers of the run.")
    out: str | None = setting(
        None, "Run folder to write. Default: runs/<experiment>-<date>-<time>."
    )
    preset: str = setting("default", "Named configuration of the experiment.")
    overwrite: bool = setting(False, "Replace an earlier run in the same --out.")
    config: str | None = setting(
        None, "config.json of an earlier run to repeat. Flags on the command line take precedence."
    )


@dataclasses.dataclass(frozen=True)
class CommandRunSettings(RunSettings):
    """Settings of every command that writes a run folder."""

    out: str | None = setting(None, "Run folder to write. Default: runs/<command>-<date>-<time>.")
    preset: str = setting("default", "The only configuration of a command.", hidden=True)


@dataclasses.dataclass(frozen=True)
class Job:
    """Experiment or command: its settings, its main function and its help.

    `load_main` imports the main when it is needed: `main(ctx, settings)` for a job that writes a
    run folder, `main(settings)` for a job without `run_settings`.
    """

    name: str
    program: tuple[str, ...]  # the call without its arguments
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
        """Name in config.json; it differs for commands and experiments of the same name."""
        return self.name if self.kind == "experiment" else f"dartjax {self.name}"

    @property
    def hint(self) -> str:
        """Last line of a message about wrong usage."""
        if self.kind == "experiment":
            return "(--help lists the flags)"
        return f"({' '.join(self.program)} --help explains the command)"


_OWN, _COMMON = "own", "common"
_NOT_REPEATED = ("out", "overwrite", "config", "help")


def parsed(job: Job, arguments: Sequence[str]) -> flags.FlagValues:
    """Parse the arguments of a job into flags.

    flags.Error or DataError for wrong arguments. --help prints the help and exits.
    """
    values = _defined(job)
    if {"--help", "-help", "--h", "-h"} & set(arguments):
        print(_help_text(job, values))
        sys.exit(0)
    rest = values([job.name, *arguments])[1:]
    positional = positional_field(job.settings)
    if rest and positional is None:
        raise flags.Error(f"unexpected argument {rest[0]!r}: write flags as --name=value")
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
    """Take over the flags of an earlier run, if --config is given; check the preset."""
    if (config := values["config"].value) is not None:
        earlier = _earlier_flags(job.title, config)
        preload(earlier, values, _NOT_REPEATED, f"--config={config}: this {job.kind}")
    if (preset := values["preset"].value) not in job.presets:
        source = "" if config is None or values["preset"].present else f" in {config}"
        raise flags.Error(
            f"unknown --preset={preset}{source}: choose one of {', '.join(job.presets)}"
        )


def _fill_positional(name: str, rest: Sequence[str], values: flags.FlagValues) -> None:
    """Assign plain arguments to their setting, which may also come from a config.json."""
    if values[name].present:
        raise flags.Error(f"give {name.upper()} as plain arguments, without --{name}")
    if rest:
        values[name].value = list(rest)
    if not values[name].value:
        raise flags.Error(f"no {name.upper()}: give at least one")


def _earlier_flags(title: str, path: str) -> dict[str, Any]:
    """Read the flags of an earlier run from its config.json."""
    remedy = "give the config.json of a finished run"
    try:
        config = read_json(path)
    except DataError as error:
        raise DataError(f"--config={path} cannot be read ({error}): {remedy}") from error
    if not isinstance(config, dict) or not isinstance(config.get("flags"), dict):
        raise DataError(f"--config={path} cannot be read (it has no flags): {remedy}")
    if "experiment" not in config:
        raise DataError(f"--config={path} cannot be read (it names no experiment): {remedy}")
    earlier, given = config["experiment"], config["flags"]
    if earlier != title:
        raise DataError(f"--config={path} belongs to {earlier}, but this is {title}")
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
    all_jobs = "every experiment" if job.kind == "experiment" else "every command"
    parts = [
        job.help,
        _positional_help(job),
        f"Flags of this {job.kind}:\n{own or '  none'}",
        f"Flags of {all_jobs}{_with_run_folder(job)}:\n{common}",
    ]
    if len(job.presets) > 1 or job.kind == "experiment":
        parts.append(f"Presets: {', '.join(job.presets)}")
    return "\n\n".join(part for part in parts if part)


def _with_run_folder(job: Job) -> str:
    return " that writes a run folder" if job.run_settings is CommandRunSettings else ""


def _positional_help(job: Job) -> str:
    field = positional_field(job.settings)
    if field is None:
        return ""
    return f"Arguments:\n  {field.name.upper()}\n      {field.metadata['help']}"


def _help_line(flag: flags.Flag) -> str:
    name = flag.name if flag.boolean else f"{flag.name}={flag.name.upper()}"
    default = f"  (default: {flag.default})" if flag.default is not None else ""
    return f"  --{name}{default}\n      {' '.join((flag.help or '').split())}"
