"""Every command that README, CONTRIBUTING and the docs give is one that its program accepts."""

import dataclasses
import importlib
import re
import shlex
from pathlib import Path

import pytest
from absl import flags

from dartjax.cli._commands import COMMANDS
from dartjax.cli._job import CommandRunSettings, RunSettings
from dartjax.cli._settings import define_flags, positional_field

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAM = re.compile(r"(?:python -m (?:experiments|benchmarks)\.\w+|dartjax [a-z]+)(?=[ \n`]|$)")


def commands(text):
    """Commands in code blocks (lines may go on after a backslash) and in inline code."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^ *```\w*\n.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [inline.replace("\n", " ") for inline in re.findall(r"`([^`]+)`", prose)]
    for line in lines:
        words = line.split("#")[0].strip().removeprefix("$ ").removeprefix(".venv/bin/")
        if PROGRAM.match(words):
            yield words


EVERY = sorted({(path, line) for path in PAGES for line in commands(path.read_text("utf-8"))})


def accepted(settings, run_settings, arguments, has_plain):
    """Parse the arguments as the launcher does; absl refuses unknown flags and wrong values."""
    values = flags.FlagValues()
    define_flags(settings, values, "own")
    if run_settings is not None:
        define_flags(run_settings, values, "common")
    values.set_gnu_getopt(has_plain)
    rest = values(["program", *(word for word in arguments if word != "--help")])[1:]
    assert has_plain or not rest, f"plain arguments {rest}"


def words_of(line):
    """Split a command; optional parts in [brackets] count, and so do the flags of a redirect."""
    return shlex.split(line.replace("[", "").replace("]", ""))


def every_flag():
    """Names of all flags of experiments, commands and benchmarks."""
    names = {field.name for field in dataclasses.fields(CommandRunSettings)} | {"help"}
    experiments = (path.parent.name for path in ROOT.glob("experiments/*/settings.py"))
    modules = (importlib.import_module(f"experiments.{name}.settings") for name in experiments)
    for settings in (
        *(module.Settings for module in modules if hasattr(module, "Settings")),
        *(command.settings for command in COMMANDS.values()),
    ):
        names |= {field.name for field in dataclasses.fields(settings)}
    for path in (ROOT / "benchmarks").rglob("*.py"):
        names |= set(re.findall(r'add_argument\(\s*"--(\w+)"', path.read_text("utf-8")))
    return names


FOREIGN = {"name", "version"}  # a placeholder; of the command without a job


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_flags_named_on_a_page_exist(path):
    text = path.read_text("utf-8")
    named = set(re.findall(r"(?<![\w-])--(\w+)", text)) - FOREIGN
    known = every_flag()
    assert {name for name in named if not {name, name.removeprefix("no")} & known} == set()


def test_there_are_commands_on_the_pages():
    assert len(EVERY) > 50


@pytest.mark.parametrize(("path", "line"), EVERY, ids=lambda value: str(value)[-60:])
def test_command_is_accepted(path, line):
    words = words_of(line)
    if words[0] == "dartjax":
        command = COMMANDS[words[1]]
        has_plain = positional_field(command.settings) is not None
        run_settings = CommandRunSettings if command.makes_run else None
        accepted(command.settings, run_settings, words[2:], has_plain)
        return
    package, _, name = words[2].partition(".")
    if package == "experiments":
        settings = importlib.import_module(f"experiments.{name}.settings").Settings
        accepted(settings, RunSettings, words[3:], has_plain=False)
        return
    source = ROOT / "benchmarks" / f"{name}.py"
    text = (source if source.exists() else source.with_suffix("") / "__main__.py").read_text()
    for word in words[3:]:
        if word.startswith("--"):
            option = word.split("=")[0]
            assert f'"{option}"' in text or f'"{option[2:]}"' in text, option
