"""`experiments.evaluate_ssm` and `build_ssm` as a user calls them."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, ssm
from dartjax.mesh import TriangleMesh
from experiments.build_ssm import card
from experiments.build_ssm.settings import Settings
from tests.experiments.in_process import start

GRADES = ("subject", "level", "modes", "dice", "nsd_1mm", "hd95_mm", "masd_mm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Meshes of one made-up subject: two instances of the models, somewhere in the world."""
    root = tmp_path_factory.mktemp("meshes")
    (root / "someone").mkdir()
    for level in ("T8", "L3"):
        model = data.load_shape_model(level, num_modes=5)
        shape = ssm.instance(model, jnp.array([0.5, -0.5, 0.8, 0.0, -0.4]))
        mesh = TriangleMesh(shape + jnp.array([[20.0, -40.0, 300.0]]), model.faces)
        data.save_ply(root / "someone" / f"{level}.ply", mesh)
    return root


@pytest.mark.slow
def test_oracle_of_a_folder_of_meshes(folder, tmp_path):
    out = tmp_path / "run"
    done = start("evaluate_ssm", f"--data={folder}", "--modes=5", f"--out={out}")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert [case["level"] for case in metrics["cases"]] == ["T8", "L3"]
    for case in metrics["cases"]:
        assert all(name in case for name in GRADES)
        assert case["subject"] == "someone" and case["modes"] == 5
        assert case["dice"] > 0.97 and case["masd_mm"] < 0.2
    assert metrics["record"]["ssm_leak"] is False
    assert metrics["record"]["shape_models"] == {"someone": "all"}
    assert metrics["summary"]["dice_min_5"] > 0.97
    assert "| T8 |" in (out / "oracle.md").read_text()


@pytest.mark.slow
def test_excluded_subjects_select_the_model_not_the_cases(folder, tmp_path):
    out = tmp_path / "run"
    flags = (f"--data={folder}", "--modes=2", "--exclude_subjects=lidc0001", f"--out={out}")
    done = start("evaluate_ssm", *flags)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["record"]["shape_models"] == {"someone": "without_lidc0001"}
    assert len(metrics["cases"]) == 2


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("evaluate_ssm", (), "--data is required"),
        ("evaluate_ssm", ("--data=/nowhere",), "no such folder"),
        ("evaluate_ssm", ("--data=/nowhere", "--modes=many"), "give whole numbers"),
        ("build_ssm", (), "--data is required"),
        ("build_ssm", ("--data=.", "--packaged", "--name=x"), "--packaged builds"),
        ("build_template", (), "--data is required"),
    ],
)
def test_mistakes_are_one_clear_line(name, flags, message, tmp_path):
    done = start(name, *flags, f"--out={tmp_path / 'run'}")
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_vertebrae_can_be_left_out(folder):
    used, rejected = data.collect_shapes(folder, without_vertebrae=["someone/T8"])
    assert [shape.level for shape in used] == ["L3"]
    assert [(each.level, each.reason) for each in rejected] == [("T8", "left out by the user")]


def test_the_packaged_sets_are_those_of_the_command():
    """In a checkout; a wheel has some of them."""
    for name, excluded in card.PACKAGED.items():
        found = data.shape_model_card(name)
        assert found["name"] == name and set(found["subjects_excluded"]) == set(excluded)
        assert not set(found["subjects_included"]) & set(excluded)
        assert found["licence"] == ("Apache-2.0" if name == "permissive" else "CC BY-SA 4.0")


def test_the_recipes_are_the_choices_of_the_flag():
    (recipe,) = (f for f in dataclasses.fields(Settings) if f.name == "recipe")
    assert set(recipe.metadata["choices"]) == set(card.RECIPES)


@pytest.mark.slow
def test_a_set_is_built_from_a_folder(tmp_path):
    """Two levels of every region of a made-up subject; the set loads and names the subject."""
    root = tmp_path / "data"
    (root / "someone").mkdir(parents=True)
    for level in ("T2", "T3", "T6", "T7", "T10", "T11", "L2", "L3"):
        model = data.load_shape_model(level, num_modes=2)
        mesh = TriangleMesh(ssm.instance(model, jnp.array([0.3, -0.3])), model.faces)
        data.save_ply(root / "someone" / f"{level}.ply", mesh)
    out = tmp_path / "set"
    done = start("build_ssm", f"--data={root}", "--num_modes=20", "--noquality", f"--out={out}")
    assert done.returncode == 0, done.stderr
    found = data.shape_model_card(out)
    assert found["subjects_included"] == ["someone"] and len(found["levels"]) == 17
    model = data.load_shape_model("L5", path=out, num_modes=20)
    assert np.isfinite(np.asarray(model.modes)).all()
    with pytest.raises(data.DataError, match="leak"):
        data.load_shape_model("L5", path=out, exclude=["someone"])
