"""The robot experiments: numbers of the small parts, and runs from end to end (slow)."""

import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.data import DataError
from dartjax.simulation import _patient as base_placement_scene
from experiments.hybrid_robot import legs as hybrid_robot_legs

ENDS = {"entry_point": [20.0, -50.0, 0.0], "target_point": [10.0, -10.0, 2.0]}


def test_table_4_is_reproduced_to_five_micrometres(x64):
    ideal = hybrid_robot_legs.ideal_legs()
    assert len(ideal) == 14
    np.testing.assert_allclose(ideal, hybrid_robot_legs.PRINTED_LEGS_MM, atol=0.005)


def write_run(folder, names, ends=ENDS):
    paths = {name: {"left": ends, "right": ends} for name in names}
    record = {"dataset": "some CT", "dataset_kind": "real_ct_drr", "ssm_excludes": ["a"]}
    record |= {"ssm_leak": False}
    (folder / "paths.json").write_text(json.dumps({"paths": paths}))
    (folder / "metrics.json").write_text(json.dumps({"record": record}))


def test_the_first_subject_and_pair_of_a_run_are_read(tmp_path):
    write_run(tmp_path, ["a_1_T9_pair1", "a_1_T10_pair1", "a_1_T9_pair2", "b_T9_pair1"])
    found = base_placement_scene.planned(tmp_path)
    assert found.levels == ("T9", "T10")
    assert found.names == ["T9 left", "T9 right", "T10 left", "T10 right"]
    assert found.record["subjects"] == ["a_1"]
    assert found.paths.entry_point.shape == (4, 3)


@pytest.mark.parametrize(
    ("names", "ends", "message"),
    [
        ([], ENDS, "planned no path"),
        (["T9"], ENDS, "SUBJECT_LEVEL_pairN"),
        (["a_T9_pair1"], ENDS | {"entry_point": [1.0, 2.0]}, "two points"),
        (["a_T9_pair1"], ENDS | {"entry_point": [1.0, 2.0, float("nan")]}, "two points"),
    ],
)
def test_a_bad_run_is_named(tmp_path, names, ends, message):
    write_run(tmp_path, names, ends)
    with pytest.raises(DataError, match=message):
        base_placement_scene.planned(tmp_path)


def test_a_record_that_lacks_a_field_is_named(tmp_path):
    write_run(tmp_path, ["a_T9_pair1"])
    (tmp_path / "metrics.json").write_text(json.dumps({"record": {"dataset": "some CT"}}))
    with pytest.raises(DataError, match="lacks dataset_kind"):
        base_placement_scene.planned(tmp_path)


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(DataError, match="--run=FOLDER"):
        base_placement_scene.planned(tmp_path / "none")


def test_the_mean_spine_is_upright_and_in_order():
    """Head at +z, paths run forward (+y), left ones start at -x, the back is behind them."""
    patient = base_placement_scene.mean_spine()
    entry, target = np.asarray(patient.paths.entry_point), np.asarray(patient.paths.target_point)
    assert patient.levels[0] == "T1"
    assert patient.levels[-1] == "L5"
    assert (np.diff(entry[::2, 2]) < 0.0).all()
    assert (target[:, 1] > entry[:, 1]).all()
    assert (entry[::2, 0] < entry[1::2, 0]).all()
    body = base_placement_scene.torso(patient)
    inside = np.asarray(body(jnp.asarray(entry)))
    np.testing.assert_allclose(inside, -40.0, atol=15.0)
    behind = np.asarray(body(jnp.asarray(entry - np.array([0.0, 100.0, 0.0]))))
    assert (behind > 20.0).all()


def test_the_patient_lies_prone_amid_the_workspace():
    patient = base_placement_scene.mean_spine()
    place = base_placement_scene.first_placement(patient)
    middle = place.apply(jnp.mean(patient.paths.entry_point, axis=0))
    np.testing.assert_allclose(middle, base_placement_scene.WORKSPACE_CENTER_MM, atol=1e-3)
    rotation = place.rotation()
    np.testing.assert_allclose(rotation.apply(jnp.array([0.0, 1.0, 0.0])), [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(rotation.apply(jnp.array([0.0, 0.0, 1.0])), [1, 0, 0], atol=1e-6)


@pytest.mark.slow
def test_hybrid_robot_from_end_to_end(tmp_path):
    out = run("hybrid_robot", tmp_path, "--poses=2000", "--robots=20")
    summary = json.loads((out / "metrics.json").read_text())["summary"]
    assert summary["round_trip_max_mm"] < 1e-9
    assert summary["joint_round_trip_max_mm"] < 1e-9
    assert summary["table_4_largest_difference_mm"] < 0.005
    assert summary["calibrated_distance_error_mean_mm"] < 0.03
    assert summary["calibrated_distance_error_max_mm"] < 0.08
    assert summary["parameters_seen_by_legs"] == 4
    assert summary["force_residual_mean_N"] < 0.25
    for name in ("tables.md", "workspace.png", "legs.png", "weight.png", "report.html"):
        assert (out / name).stat().st_size > 1000


@pytest.mark.slow
def test_base_placement_from_end_to_end(tmp_path):
    out = run("base_placement", tmp_path, "--steps=40", "--draws=5")
    content = json.loads((out / "metrics.json").read_text())
    summary = content["summary"]
    assert content["record"]["dataset_kind"] == "synthetic"
    assert "mean shapes" in content["record"]["dataset"]
    assert summary["cart_reached_share"] >= summary["first_reached_share"]
    assert summary["wire_tip_error_max_mm"] < 0.01
    assert len(content["cases"]) == summary["paths"] == 34


def run(name, folder, *flags):
    out = folder / "run"
    command = [sys.executable, "-m", f"experiments.{name}", f"--out={out}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_bad_flags_end_with_code_2(tmp_path):
    command = [sys.executable, "-m", "experiments.base_placement", f"--run={tmp_path}"]
    done = subprocess.run(
        [*command, f"--out={tmp_path / 'out'}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "reconstruct --demo" in done.stderr
    assert not (tmp_path / "out").exists()
