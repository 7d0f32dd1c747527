"""Curves: what counts as a failure, what a table says, and how cameras are made wrong."""

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, transforms
from experiments.robustness import report as robustness_report
from experiments.robustness.curves import (
    AS_GIVEN,
    AXES,
    CURVES,
    REFINED,
    VALUES,
    Bench,
    Scene,
    _outcome,
    _second,
    only,
)


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
    row = robustness_report.rows_of([case(0.0), nothing, case(0.0, masd=2.5)], "camera_angle")[0]
    assert (row["n"], row["no answer"], row["failures"]) == (3, 1, 2)
    assert row["Dice"] == pytest.approx(0.8)


def test_arms_are_rows_and_curves_do_not_mix():
    cases = [case(3.0, REFINED, dice=0.9), case(3.0), case(1.0), case(2, curve="views", dice=0.1)]
    rows = robustness_report.rows_of(cases, "camera_angle")
    assert [(row[AXES["camera_angle"]], row["arm"]) for row in rows] == [
        (1.0, AS_GIVEN),
        (3.0, AS_GIVEN),
        (3.0, REFINED),
    ]
    assert "arm" not in robustness_report.rows_of(cases, "views")[0]


def test_the_figure_is_written_where_a_point_has_no_answer(tmp_path):
    cases = [case(0.0), case(1.0, dice=np.nan, masd=np.nan), case(1.0, REFINED)]
    robustness_report.draw(tmp_path / "curves.png", cases, ["camera_angle"], "title")
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
    robustness_report.write_tables(path, record, [case(0.0)], ["camera_angle"])
    assert "no table is written" in path.read_text()


def test_every_curve_has_an_axis_and_values():
    made = [curve for curves in CURVES.values() for curve in curves]
    assert sorted(made) == sorted(AXES) == sorted(VALUES)


@pytest.fixture
def bench():
    """Without a CT: only its geometry is used."""
    made = Bench.__new__(Bench)
    made.isocenter = np.array([5.0, -20.0, 300.0])
    made._turn_axis, made._shift_axis = np.array([0.6, 0.0, 0.8]), np.array([0.0, 1.0, 0.0])
    return made


def test_a_wrong_camera_is_off_by_what_is_asked_for(bench):
    pivot = jnp.asarray(bench.isocenter, jnp.float32)
    turned, shifted = bench.motion(3.0, 0.0), bench.motion(0.0, 10.0)
    angle = jnp.rad2deg(transforms.rotation_angle(turned.rotation()))
    assert float(angle) == pytest.approx(3.0, abs=1e-3)
    np.testing.assert_allclose(turned.apply(pivot), pivot, atol=1e-3)
    assert float(jnp.linalg.norm(shifted.apply(pivot) - pivot)) == pytest.approx(10.0, abs=1e-3)
    np.testing.assert_allclose(shifted.rotation().as_matrix(), np.eye(3), atol=1e-6)


def test_what_refinement_leaves_is_counted_from_the_true_camera(bench):
    wrong = bench.motion(2.0, 6.0)
    own = Scene("camera_angle", 2.0, REFINED, 0, [], wrong, bench.isocenter)
    nothing = _outcome(own, transforms.SE3.identity((2,)), "")
    assert nothing.angle_left_deg == pytest.approx(2.0, abs=1e-2)
    assert nothing.shift_left_mm == pytest.approx(6.0, abs=1e-2)
    undone = _outcome(own, _second(wrong.inverse()), "refined")
    assert undone.angle_left_deg < 0.05 and undone.shift_left_mm < 0.01
    alone = _outcome(own, transforms.SE3.identity((1,)), "")  # of one view
    assert np.isfinite(alone.angle_left_deg)


def test_only_the_levels_asked_for_are_fitted():
    class Task:
        def __init__(self, level):
            self.level = level

    own = Scene("views", 2, AS_GIVEN, 0, [Task("T3"), Task("T9")], None, np.zeros(3))  # pyright: ignore
    assert [task.level for task in only([own], ["T9"])[0].tasks] == ["T9"]


def test_views_at_an_angle_are_that_angle_apart(bench):
    from dartjax.simulation import _carm as scene

    bench._primary, bench._setup = 0.7, scene.CarmSetup()
    for angle in VALUES["angles"]:
        first, second = bench._level_view(0.0), bench._level_view(angle)
        assert scene.pair_angles_deg([first, second])[0] == pytest.approx(angle, abs=0.05)
        assert isinstance(first, camera.Camera)
