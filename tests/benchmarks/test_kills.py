"""The check of killed jobs finds what is half-written, lost, done again, different, left behind."""

import json
import sys

import numpy as np
import pytest
import trimesh
from PIL import Image

from benchmarks import kills
from benchmarks._kill_files import (
    Piece,
    changes_of_pieces,
    contents,
    damaged_checkpoint,
    damaged_files,
    differences,
    incomplete_run,
    latest_step,
    leftovers,
)
from benchmarks._kill_jobs import Job


@pytest.fixture
def folder(tmp_path):
    """One file of every kind."""
    root = tmp_path / "files"
    root.mkdir()
    (root / "a.json").write_text(json.dumps({"dice": 0.9, "seconds_fit": 3.0}))
    np.savez_compressed(root / "b.npz", x=np.arange(5000) % 7)
    np.save(root / "c.npy", np.arange(5000))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 40), np.uint8)).save(root / "d.png")
    trimesh.creation.icosphere(2).export(root / "e.ply")
    (root / "f.md").write_text("table")
    return root


def test_whole_files_are_fine(folder):
    assert damaged_files(folder) == []
    assert len(contents(folder)) == 6


@pytest.mark.parametrize("name", ["a.json", "b.npz", "c.npy", "d.png", "e.ply"])
def test_half_of_a_file_is_found(folder, name):
    path = folder / name
    whole = contents(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (found,) = damaged_files(folder)
    assert found.startswith(f"{name}: ")
    assert differences(whole, contents(folder)) == [f"{name} differs"]


@pytest.mark.parametrize("name", ["a.json", "b.npz", "c.npy", "d.png", "e.ply", "f.md"])
def test_an_empty_file_is_found(folder, name):
    (folder / name).write_bytes(b"")
    (found,) = damaged_files(folder)
    assert found.startswith(f"{name}: ")


def test_hidden_files_are_left_behind_and_not_damaged(folder):
    (folder / ".g.json").write_text("{")
    (folder / ".unit.partial").mkdir()
    (folder / ".unit.partial" / "h.json").write_text("{")
    (folder / "7.orbax-checkpoint-tmp").mkdir()
    assert damaged_files(folder) == []
    expected = [".g.json", ".unit.partial", ".unit.partial/h.json", "7.orbax-checkpoint-tmp"]
    assert leftovers(folder) == expected


def test_times_do_not_count_and_numbers_do(folder):
    whole = contents(folder)
    (folder / "a.json").write_text(json.dumps({"seconds_fit": 9.0, "dice": 0.9}))
    assert differences(whole, contents(folder)) == []
    (folder / "a.json").write_text(json.dumps({"seconds_fit": 9.0, "dice": 0.90001}))
    (folder / "f.md").unlink()
    np.savez(folder / "b.npz", x=np.arange(5000) % 7)  # the same arrays, stored otherwise
    assert differences(whole, contents(folder)) == ["a.json differs", "f.md is missing"]
    assert differences({}, {"x": "1"}) == ["x is not in the reference"]


def test_a_run_needs_config_and_metrics(tmp_path):
    assert incomplete_run(tmp_path / "run") == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert incomplete_run(tmp_path / "run") == ["run has no metrics.json"]


def test_lost_repeated_and_different_pieces_are_named():
    before = {name: Piece(1, {"x": name}) for name in "abc"}
    now = {"b": Piece(2, {"x": "b"}), "c": Piece(1, {"x": "other"})}
    found = changes_of_pieces(before, {"d"}, now, before)
    assert found == {"lost": ["a", "d"], "done again": ["b"], "differing": ["c"]}
    calm = changes_of_pieces(before, "abc", before, before)
    assert calm == {"lost": [], "done again": [], "differing": []}


@pytest.mark.slow
def test_a_damaged_checkpoint_is_found(tmp_path):
    jnp = pytest.importorskip("jax.numpy")
    from dartjax import training

    plan = training.Training(
        loss=lambda params, batch, key: (jnp.sum(params["w"] ** 2), {}),
        batch_of=lambda step: jnp.zeros(()),
        validate=lambda params: {"score": 1.0},
        schedule=training.Schedule(2),
        seed=0,
        validate_every=2,
        patience=2,
    )
    training.train({"w": jnp.ones(3)}, plan, tmp_path)
    assert latest_step(tmp_path) == 2
    assert damaged_checkpoint(tmp_path) == []
    for path in (tmp_path / "2" / "best").rglob("manifest.ocdbt"):
        path.write_bytes(path.read_bytes()[:10])
    assert len(damaged_checkpoint(tmp_path)) == 1


def job(fault):
    """The job of `writer.py`."""
    return Job(
        name="writer",
        flags=lambda _, base: ["tests.benchmarks.writer", f"--base={base}", f"--fault={fault}"],
        pieces=lambda base: {path.name: path for path in base.glob("pieces/[0-9].json")},
        results=("run", "pieces"),
        volatile=(),
        keeps_pieces=True,
    )


def test_a_job_that_writes_atomically_passes(tmp_path):
    tally = kills.kill_job(job("none"), 6, 0, tmp_path)
    assert tally.kills == 6 == sum(tally.phases.values()) == sum(tally.signals.values())
    assert tally.resumed >= 3 and tally.finished >= 1
    assert not any(tally.wrong.values()), tally.wrong
    assert json.loads(json.dumps(tally.as_json()))["phases"] == dict(tally.phases)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("halves", "half-written"),
        ("forgets", "done again"),
        ("litters", "left behind"),
        ("drifts", "differing"),
    ],
)
def test_a_job_with_a_fault_is_found_out(tmp_path, fault, kind):
    tally = kills.kill_job(job(fault), 8, 1, tmp_path)
    assert tally.wrong[kind]


@pytest.mark.slow
def test_two_kills_of_the_data_set(tmp_path, monkeypatch, capsys):
    flags = ["kills", "--job=dataset", "--kills=2", "--seed=3", f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", flags)
    assert kills.main() == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "kills.json").read_text())
    assert found["jobs"]["dataset"]["kills"] == 2
    assert found["jobs"]["dataset"]["finished"] >= 1
    assert not any(found["jobs"]["dataset"]["wrong"].values())
