"""The robot experiments: numbers of the small parts, and runs from end to end (slow)."""

import json

import numpy as np
import pytest

from dartjax import simulation
from experiments.hybrid_robot import report, tables
from tests.experiments.in_process import start


def test_table_4_is_reproduced_to_five_micrometres(x64):
    ideal = simulation.ideal_leg_lengths()
    assert len(ideal) == 14
    np.testing.assert_allclose(ideal, tables.PRINTED_LEGS_MM, atol=0.005)


def test_the_shown_compensations_are_some_of_the_simulated():
    assert set(report.SHOWN_METHODS) <= set(simulation.COMPENSATION_METHODS)


@pytest.mark.slow
def test_the_study_of_the_tools_weight_meets_its_goals():
    residuals = simulation.compensation_residuals(3, num_robots=20)
    summary = tables.weight_summary(residuals)
    assert summary["force_residual_mean_N"] <= 0.25 < summary["nominal_force_residual_mean_N"]
    assert summary["force_residual_max_N"] <= 0.8
    assert summary["torque_residual_mean_Nm"] <= 0.012
    assert len(tables.weight_rows(residuals)) == 18
    grid = len(simulation.COMPENSATION_THX_DEG) * len(simulation.COMPENSATION_TH5_DEG)
    assert residuals["rigid tool"].shape == (20, grid, 6)


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
    done = start(name, f"--out={out}", *flags)
    assert done.returncode == 0, done.stderr
    return out


def test_bad_flags_end_with_code_2(tmp_path):
    done = start("base_placement", f"--run={tmp_path}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "dartjax demo" in done.stderr
    assert not (tmp_path / "out").exists()
