"""What a job prints comes after its results, and on any terminal."""

import io
import os
import pathlib
import subprocess
import sys

import pytest

from dartjax.cli import _output as output

ROOT = pathlib.Path(__file__).parents[2]


def test_text_is_held_until_the_end_also_of_a_failure(capsys):
    with pytest.raises(ValueError, match="ends"), output.held_stdout():
        print("a table")
        assert capsys.readouterr().out == ""
        raise ValueError("ends")
    assert capsys.readouterr().out == "a table\n"


def test_other_characters_are_escaped(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, "ascii"))
    output.allow_any_text()
    print("Köln", flush=True)
    assert written.getvalue() == b"K\\xf6ln\n"


@pytest.mark.slow
def test_a_run_in_a_folder_with_an_umlaut_on_an_ascii_terminal(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.cli.dummy", f"--out={tmp_path / 'Köln'}"],
        check=False,
        cwd=ROOT,
        env={
            **os.environ,
            "LC_ALL": "C",
            "PYTHONIOENCODING": "ascii",
            "DARTJAX_CACHE": str(tmp_path / "cache"),
        },
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert b"K\\xf6ln" in done.stdout
    assert (tmp_path / "Köln" / "metrics.json").is_file()
