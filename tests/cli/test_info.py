"""`dartjax info` and `dartjax weights` as commands: tables, JSON, exit codes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from dartjax import cli
from dartjax.cli.facts._assets import ASSETS

CAMERA = {
    "view": "AP",
    "sdd": 1020,
    "source_to_isocenter": 530,
    "isocenter": [0, 0, 0],
    "pixel_spacing": 0.4,
    "image_size": [32, 32],
}


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    return stopped.value.code or 0


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "a.npy", np.linspace(0, 6, 1024).reshape(32, 32))
    (tmp_path / "cameras.json").write_text(json.dumps([CAMERA]))
    return tmp_path / "a.npy", tmp_path / "cameras.json"


def test_every_file_has_its_table(files, capsys):
    assert run("info", *files) == 0
    shown = capsys.readouterr()
    assert f"{files[0]}: X-ray image" in shown.out and "32, 32" in shown.out
    assert f"{files[1]}: cameras" in shown.out and "sdd (mm)" in shown.out
    assert "warning: only one view" in shown.out and not shown.err


def test_json_is_one_document(files, capsys):
    assert run("info", *files, "--json") == 0
    image, cameras = json.loads(capsys.readouterr().out)["files"]
    assert image["kind"] == "X-ray image" and image["facts"]["image_size"] == [32, 32]
    assert cameras["facts"]["views"][0]["source_mm"] == [0.0, 530.0, 0.0]
    assert "only one view" in cameras["warnings"][0]


def test_a_file_that_cannot_be_read_does_not_hide_the_others(files, capsys):
    assert run("info", "nothing.png", files[0]) == 2
    shown = capsys.readouterr()
    assert "X-ray image" in shown.out
    assert shown.err == "error: nothing.png: no such file or folder\n"
    assert run("info", "nothing.png", files[0], "--json") == 2
    found = json.loads(capsys.readouterr().out)["files"]
    assert [entry["path"] for entry in found] == [str(files[0]), "nothing.png"]


def test_weights_lists_every_asset_with_its_licence(capsys):
    cards = [card.parent for card in ASSETS.rglob("card.json")]
    assert run("weights") == 0
    shown = capsys.readouterr().out.replace("\n", "")
    assert all(str(folder) in shown for folder in cards)
    assert run("weights", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assets = {asset["path"]: asset for asset in listed["assets"]}
    assert {str(folder) for folder in cards} <= assets.keys()
    assert all(asset["what"] and asset["licence"] for asset in assets.values())
    assert listed["total_mb"] == pytest.approx(sum(a["size_mb"] for a in assets.values()), abs=0.01)
    for folder in cards:
        card = json.loads((folder / "card.json").read_text())
        assert assets[str(folder)].get("subjects") == card.get("subjects_included")


def test_every_packaged_file_is_in_the_list(capsys):
    assert run("weights", "--json") == 0
    listed = [asset["path"] for asset in json.loads(capsys.readouterr().out)["assets"]]
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    assert [f for f in files if not {str(f), str(f.parent)} & set(listed)] == []


def test_facts_of_xrays_need_no_jax():
    """Its import takes seconds."""
    code = "import dartjax.cli.facts._xray, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
