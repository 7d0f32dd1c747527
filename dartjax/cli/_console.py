"""The command line of `dartjax`: select a command and start it."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from dartjax.cli._commands import COMMANDS, Command
from dartjax.cli._job import CommandRunSettings, Job
from dartjax.cli._launch import start, stop, version
from dartjax.cli._settings import positional_field

_HELP = ("--help", "-help", "-h", "help")
_INTERRUPTED = 130  # exit code of a program ended by Ctrl-C


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command named by the first argument, and exit the process.

    Exit codes: 0 done, 1 the run failed, 2 bad usage or bad input.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        _run(arguments)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:  # the reader of the pipe has closed it; nothing more can be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _run(arguments: Sequence[str]) -> NoReturn:
    if not arguments or arguments[0] in _HELP:
        print(_overview())
        sys.exit(0)
    if arguments[0] == "--version":
        print(f"dartjax {version('dartjax')}")
        sys.exit(0)
    name, *rest = arguments
    command = COMMANDS.get(name)
    if command is None:
        stop(2, _unknown(name))
    if command.makes_run:
        _use_all_cores()
    start(_job(name, command), rest)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        f"  {name:{width}}  {command.summary}\n  {'':{width}}    {command.example}"
        for name, command in COMMANDS.items()
    ]
    return "\n".join(
        [
            "Vertebrae in 3D from two X-rays, and needle paths through them.",
            "",
            "Usage: dartjax COMMAND [arguments]",
            "",
            *lines,
            "",
            "dartjax COMMAND --help explains a command; dartjax --version prints the version.",
        ]
    )


def _unknown(name: str) -> str:
    if name.startswith("-"):
        return f"{name} must follow the command: write dartjax COMMAND {name} (dartjax --help)"
    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    hint = f": did you mean {near[0]}?" if near else f": use one of {', '.join(COMMANDS)}"
    return f"dartjax has no command {name!r}{hint}\n(dartjax --help lists the commands)"


def _job(name: str, command: Command) -> Job:
    return Job(
        name=name,
        program=("dartjax", name),
        settings=command.settings,
        load_main=lambda: _load(command.main),
        help=f"{_usage(name, command)}\n\n{command.about}\n\nExample:\n  {command.example}",
        kind="command",
        run_settings=CommandRunSettings if command.makes_run else None,
        defaults=command.defaults,
    )


def _usage(name: str, command: Command) -> str:
    field = positional_field(command.settings)
    return f"Usage: dartjax {name}{f' {field.name.upper()}' if field else ''} [flags]"


def _load(place: str) -> Callable[..., Any]:
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(module), function)


def _use_all_cores() -> None:
    """Set one XLA device per core, so that a batch of vertebrae uses all cores.

    JAX reads the setting when it is imported. Settings of the user take precedence.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count() or 1))
