"""Robustness curves: definition of a failure, and rows of the tables."""

import numpy as np
import pytest

from dartjax.pipeline import AS_GIVEN, CAMERA_CURVES, REFINED, ROBUSTNESS_VALUES
from experiments.robustness import report
from experiments.robustness.report import AXES
from experiments.robustness.settings import CURVES


def case(value, arm=AS_GIVEN, dice=0.8, masd=1.0, curve="camera_angle", flagged=False):
    return {
        "curve": curve,
        "value": value,
        "arm": arm,
        "dice": dice,
        "masd_mm": masd,
        "flagged": flagged,
        "scene_aligned_dice": dice,
        "scene_aligned_masd_mm": masd,
        "camera_angle_left_deg": 1.0,
        "camera_shift_left_mm": 2.0,
    }


def test_no_answer_counts_as_a_failure():
    nothing = case(0.0, dice=np.nan, masd=np.nan)
    row = report.rows_of([case(0.0), nothing, case(0.0, masd=2.5)], "camera_angle")[0]
    assert (row["n"], row["no answer"], row["failures"]) == (3, 1, 2)
    assert row["Dice"] == pytest.approx(0.8)


def test_arms_are_rows_and_curves_do_not_mix():
    cases = [case(3.0, REFINED, dice=0.9), case(3.0), case(1.0), case(2, curve="views", dice=0.1)]
    rows = report.rows_of(cases, "camera_angle")
    assert [(row[AXES["camera_angle"]], row["arm"]) for row in rows] == [
        (1.0, AS_GIVEN),
        (3.0, AS_GIVEN),
        (3.0, REFINED),
    ]
    assert "arm" not in report.rows_of(cases, "views")[0]


def test_the_figure_is_written_where_a_point_has_no_answer(tmp_path):
    cases = [case(0.0), case(1.0, dice=np.nan, masd=np.nan), case(1.0, REFINED)]
    report.draw(tmp_path / "curves.png", cases, ["camera_angle"], "title")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_a_leak_is_not_tabled(tmp_path):
    record = {
        "dataset": "x",
        "dataset_kind": "synthetic",
        "ids_hash": "0",
        "n_subjects": 1,
        "n_vertebrae": 1,
        "ssm_excludes": [],
        "ssm_leak": True,
        "seed": 0,
        "commit": "c",
        "preset": "default",
        "nsd_tolerance_mm": 1.0,
    }
    path = tmp_path / "tables.md"
    report.write_tables(path, record, [case(0.0)], ["camera_angle"])
    assert "no table is written" in path.read_text()


def test_every_curve_has_an_axis_and_values():
    made = [curve for curves in CURVES.values() for curve in curves]
    assert sorted(made) == sorted(AXES) == sorted(ROBUSTNESS_VALUES)
    assert CURVES["cameras"] == CAMERA_CURVES
