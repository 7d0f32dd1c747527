"""The code in the README and the docs runs."""

import dataclasses
import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import dartjax
from dartjax import data, synthverse
from tests.pipeline.test_reconstruct import starts, xrays

ROOT = Path(__file__).parent.parent


def blocks(name):
    """Every Python block of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


def run(code):
    names: dict = {}
    exec(code, names)
    return names


def test_the_example_of_the_quickstart_runs():
    (example,) = [block for block in blocks("docs/quickstart.md") if "value_and_grad" in block]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    names = run(example)
    assert float(names["value"]) > 0.0
    assert names["gradient"].shape == (15,)
    assert bool(jnp.isfinite(names["gradient"]).all())


@pytest.mark.slow
def test_the_example_of_the_spine_prior_runs():
    """T11 lies between T10 and T12, which are known."""
    (example,) = blocks("docs/spine_prior.md")
    expected = run(example)["expected"]
    height = expected.T_world_frame.translation()[:, 2]
    assert height[9] > height[10] > height[11]
    assert bool(expected.known.all()) and float(expected.sigma[10, :3].max()) < 3.0


@pytest.mark.slow
def test_the_front_door_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_views(tmp_path)
    (example,) = [block for block in blocks("README.md") if "dartjax.reconstruct" in block]
    names = run(example.replace(".png", ".npy"))
    assert [vertebra.level for vertebra in names["spine"]] == ["T8", "T9", "T10"]
    content = json.loads((tmp_path / "spine" / "spine.json").read_text())
    assert content["version"] == dartjax.__version__
    assert all((tmp_path / "spine" / v["mesh"]).is_file() for v in content["vertebrae"])


def write_views(folder):
    """Two X-rays with their cameras, and rough starts, as files."""
    for name, xray in zip("ab", xrays(), strict=True):
        np.save(folder / f"{name}.npy", np.asarray(xray.image))
    data.save_cameras(folder / "cameras.json", [xray.camera for xray in xrays()])
    data.save_starts(folder / "init.json", starts())


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/uncertainty.md", "docs/learning.md"])
def test_what_is_packaged_can_be_evaluated(page, monkeypatch, capsys):
    """On one vertebra of synthetic anatomy, of a subject that no network was trained on."""
    case = dataclasses.replace(synthverse.synthetic_case(), subject="synthetic")
    monkeypatch.setattr(data, "find_subjects", lambda folder: ["one"])
    monkeypatch.setattr(data, "load_case", lambda subject: case)
    (example,) = [block for block in blocks(page) if "find_subjects" in block]
    small = example.replace("case.levels", f"{case.levels[-1:]}")
    run(small.replace("Study(", f"Study(levels={case.levels[-1:]}, baselines=False, "))
    shown = capsys.readouterr().out
    assert "at least 30" in shown or "'oracle': 0." in shown
