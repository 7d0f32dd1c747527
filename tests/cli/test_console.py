"""The command line `dartjax`: commands, help, run folders and exit codes."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
import tomllib

import pytest

from dartjax import cli, data
from dartjax.cli import _commands, _console
from experiments.reconstruct.settings import Settings as Experiment
from tests.cli import dummy_command

ROOT = pathlib.Path(__file__).parents[2]
COUNT = _commands.Command(
    summary="Counts words.",
    example="dartjax count a b",
    about="Count words, each once.",
    settings=dummy_command.Settings,
    main="tests.cli.dummy_command:count",
    defaults={"seed": 5},
)
SHOW = dataclasses.replace(COUNT, main="tests.cli.dummy_command:show", makes_run=False)


@pytest.fixture(autouse=True)
def _with_dummy_commands(monkeypatch):
    monkeypatch.setitem(_commands.COMMANDS, "count", COUNT)
    monkeypatch.setitem(_commands.COMMANDS, "show", SHOW)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept as it is")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")


def run(*arguments):
    """Exit code of a command, in this process."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    return stopped.value.code or 0


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_the_help_lists_every_command_with_an_example(arguments, capsys):
    assert run(*arguments) == 0
    shown = capsys.readouterr().out
    for name, command in _commands.COMMANDS.items():
        assert f"  {name} " in shown and command.summary in shown and command.example in shown


def test_the_version_is_that_of_the_package(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("dartjax 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recon",), "did you mean reconstruct?"),
        (("xyzzy",), "use one of reconstruct, demo"),
        (("--out=a", "demo"), "must follow the command"),
        (("count",), "no WORDS: give at least one"),
        (("count", "a", "--words=b"), "without --words"),
        (("count", "a", "--sed=3"), "Did you mean: seed"),
        (("count", "a", "--preset=fast"), "unknown --preset=fast"),
        (("show", "a", "--seed=3"), "Unknown command line flag 'seed'"),
        (("show", "a", "--end=bad_input"), "words.txt: line 3 is empty; fill it"),
        (("demo", "file.png"), "unexpected argument 'file.png'"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(arguments, message, tmp_path, capsys):
    out = () if arguments[0] == "show" or arguments[0].startswith("-") else (f"--out={tmp_path}/a",)
    assert run(*arguments, *out) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors and "experiment" not in errors
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", _commands.COMMANDS)
def test_the_help_of_a_command_says_what_how_and_which_flags(name, capsys):
    command = _commands.COMMANDS[name]
    assert run(name, "--help") == 0
    shown = capsys.readouterr().out
    assert f"Usage: dartjax {name}" in shown and command.example in shown
    assert command.about in shown and "experiment" not in shown and "--preset" not in shown
    assert ("--out" in shown) == ("--overwrite" in shown) == command.makes_run
    for field in dataclasses.fields(command.settings):
        is_argument = field.metadata["positional"]
        assert (field.name.upper() if is_argument else f"--{field.name}") in shown
        assert not is_argument or f"--{field.name}=" not in shown


def test_flags_may_follow_file_names(tmp_path):
    out = tmp_path / "a"
    assert run("count", "one", f"--out={out}", "two,three", "--", "--four") == 0
    assert (out / "count.txt").read_text() == "3 5"  # a comma is part of a name; seed by default 5
    config = json.loads((out / "config.json").read_text())
    assert config["experiment"] == "dartjax count"
    assert config["flags"]["words"] == ["one", "two,three", "--four"]
    assert config["command"][:3] == ["dartjax", "count", "one"]


def test_a_config_repeats_the_arguments_and_given_ones_take_precedence(tmp_path):
    assert run("count", "one", "two", "--seed=7", f"--out={tmp_path}/a") == 0
    config = f"--config={tmp_path}/a/config.json"
    assert run("count", config, f"--out={tmp_path}/b") == 0
    assert (tmp_path / "b/count.txt").read_text() == "2 7"
    assert run("count", "three", config, f"--out={tmp_path}/c") == 0
    assert (tmp_path / "c/count.txt").read_text() == "1 7"


def test_a_config_of_an_experiment_of_the_same_name_is_another_thing(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"experiment": "count", "flags": {}}')
    assert run("count", "a", f"--config={tmp_path}/config.json", f"--out={tmp_path}/a") == 2
    assert "belongs to count, but this is dartjax count" in capsys.readouterr().err


def test_a_failed_run_keeps_its_trace_and_has_exit_code_1(tmp_path, capsys):
    assert run("count", "a", "--end=raise", f"--out={tmp_path}/a") == 1
    assert "RuntimeError: words fail" in capsys.readouterr().err
    assert "Traceback" in (tmp_path / "a.failed/error.log").read_text()


def test_without_a_run_folder_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("show", "a", "b") == 0
    assert capsys.readouterr().out == "2\n"
    assert run("show", "a", "--end=raise") == 1
    assert "dartjax show failed: RuntimeError" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("given", "devices"), [(None, str(os.cpu_count())), ("3", "3")])
def test_a_run_has_a_device_per_core_unless_the_user_says_otherwise(
    tmp_path, monkeypatch, given, devices
):
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if given:
        monkeypatch.setenv("JAX_NUM_CPU_DEVICES", given)
    assert run("count", "a", f"--out={tmp_path}/a") == 0
    assert os.environ["JAX_NUM_CPU_DEVICES"] == devices


def test_reconstruct_offers_what_the_experiment_does_for_ones_own_x_rays():
    ours = {field.name: field for field in dataclasses.fields(_commands.Reconstruct)}
    theirs = {field.name: field for field in dataclasses.fields(Experiment)}
    assert ours["pixels"].metadata["choices"] == theirs["pixels"].metadata["choices"]
    assert set(ours["recipe"].metadata["choices"]) <= set(theirs["recipe"].metadata["choices"])
    assert ours["needle_radius_mm"].default == data.NEEDLE_RADIUS_MM


def test_the_installed_command_is_the_one_tested_here():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"dartjax": "dartjax.cli:main"}
    assert cli.main is _console.main and (ROOT / "dartjax/py.typed").is_file()


CODE = """
import sys
from dartjax.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stopped:
    sys.exit(stopped.code or ("jax" in sys.modules or "dartjax.data" in sys.modules))
"""


@pytest.mark.parametrize("arguments", [(), ("reconstruct", "--help"), ("info", "."), ("weights",)])
def test_help_info_and_weights_come_at_once_without_jax(tmp_path, arguments):
    (tmp_path / "L1.ply").touch()  # something for info to find in the folder
    seconds = []
    for _ in range(2):  # the first may have to compile the sources
        started = time.monotonic()
        command = [sys.executable, "-c", CODE, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        seconds.append(time.monotonic() - started)
        assert done.returncode == 0, done.stderr
    assert min(seconds) < 2.0


def test_the_package_can_be_run_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "dartjax", "--version"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.startswith("dartjax 0.")
