"""All experiments can be imported into one process."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiments.in_process import start

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py"))


def settings_of(name):
    return importlib.import_module(f"experiments.{name}.settings").Settings


def main_of(name):
    return importlib.import_module(f"experiments.{name}.__main__").main


def test_all_can_be_imported_in_one_process():
    assert len(NAMES) == 29
    assert len({main_of(name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_frozen_and_documented(name):
    settings = settings_of(name)
    assert dataclasses.is_dataclass(settings) and settings.__doc__
    made = settings()
    for field in dataclasses.fields(settings):
        assert field.metadata["help"].endswith((".", ")")), field.name
        choices = field.metadata["choices"]
        assert not choices or field.default in (*choices, None), field.name
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.anything = 1


def test_settings_are_read_without_jax():
    modules = ", ".join(f"experiments.{name}.settings" for name in NAMES)
    code = f"import sys\nimport {modules}\nsys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_an_import_starts_no_device():
    """A main chooses its devices after its imports."""
    modules = ", ".join(f"experiments.{name}.__main__" for name in NAMES)
    check = "jax.config.update('jax_num_cpu_devices', 2)"
    code = f"import jax\nimport {modules}\n{check}"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_two_mains_run_one_after_the_other(tmp_path):
    """A synthetic subject is made, and described as a cohort, by the same process."""
    given = {
        "make_synthverse": ("--num_subjects=1", "--spacing_mm=4", "--field_of_view=lumbar"),
        "cohort": (f"--cohort={tmp_path / 'make_synthverse' / 'cohort'}", "--centroids=mask"),
    }
    for name, flags in given.items():
        done = start(name, *flags, "--seed=3", f"--out={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        config = json.loads((tmp_path / name / "config.json").read_text())
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        assert config["experiment"] == name and metrics["record"]["seed"] == 3
        assert metrics["record"]["n_subjects"] == 1
    # The flags of one are none of the other's.
    assert start("cohort", "--num_subjects=1", f"--out={tmp_path / 'none'}").returncode == 2
