"""Spine of known estimates: its content, and spine.json."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, pipeline, planning, ssm
from dartjax.pipeline import QualityAssessment, _task
from tests.pipeline.vertebrae import answer_of, two_tasks


@pytest.fixture(scope="module")
def tasks():
    return two_tasks()


@pytest.fixture(scope="module")
def spine(tasks):
    """Make the spine of a correct estimate and an abstention."""
    estimates = [_task.estimate_of(answer_of(task)) for task in tasks]
    assessed = QualityAssessment(0.125, np.zeros(5), np.zeros((2, 2)), 4.0 * np.eye(21))
    answers = pipeline.AssessedAnswers(estimates, ["", "too little"], [assessed, None])
    options = pipeline.ReconstructOptions(needle_radius_mm=1.0)
    return pipeline.plan_spine(tasks, answers, options, warnings=["one view"])


def test_a_vertebra_contains_its_estimate(spine, tasks):
    first, second = spine
    truth = tasks[0].truth
    assert first.level == "T9" and first.status == "converged" and first.succeeded
    np.testing.assert_allclose(first.surface.vertices, truth.surface.vertices, atol=1e-3)
    assert first.p_failure == 0.125 and float(first.covariance[3, 3]) == 4.0
    left, right = first.paths
    for planned, points in zip((left, right), ssm.paths(tasks[0].model, truth.dense), strict=True):
        np.testing.assert_allclose(planned.path.entry_point, points[0], atol=1e-3)
        np.testing.assert_allclose(planned.path.target_point, points[1], atol=1e-3)
        room = planning.clearance(planned.path, truth.field)
        assert planned.clearance_mm == pytest.approx(float(room.clearance), abs=0.02)
        assert planned.feasible == bool(room.feasible)
    assert second.abstained and not second.succeeded and second.paths is None
    assert second.status == "abstained: too little" and second.p_failure is None
    assert spine.warnings == ("one view",) and spine.num_views == 2


def test_a_spine_is_a_sequence_with_levels(spine):
    assert len(spine) == 2 and spine["T9"] is spine.vertebrae[0]
    with pytest.raises(KeyError, match="L4 is not among the reconstructed levels"):
        spine["L4"]


def test_left_is_the_patients_left(spine):
    """RAS+: the left path lies at smaller x, the right one at larger."""
    left, right = spine.vertebrae[0].paths
    assert left.path.target_point[0] < right.path.target_point[0]


def test_spine_json_follows_the_contract(spine, tmp_path, tasks):
    file = spine.save(tmp_path / "new")
    content = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert file == tmp_path / "new" / "spine.json" and content["frame"] == "patient"
    assert content["views"] == 2 and content["warnings"] == ["one view"]
    assert content["models"] == data.shape_model_card()["name"] and content["weights"] == []
    first, second = content["vertebrae"]
    pose = np.array(first["pose_world_from_vertebra"])
    np.testing.assert_allclose(pose, tasks[0].truth.pose.as_matrix(), atol=1e-6)
    assert first["p_failure"] == 0.125 and len(first["coefficients"]) == 15
    assert set(first["paths"]) == {"left", "right"}
    assert first["paths"]["left"]["radius_mm"] == 1.0
    mesh = data.load_mesh(tmp_path / "new" / first["mesh"])
    np.testing.assert_allclose(mesh.vertices, spine["T9"].surface.vertices, atol=1e-3)
    # An abstained vertebra has no values.
    assert second["abstained"] and second["mesh"] is None and second["paths"] is None
    assert second["pose_world_from_vertebra"] is None and second["coefficients"] is None


def test_values_that_are_not_finite_are_null(spine):
    assert pipeline._spine._plain(jnp.array([1.0, jnp.nan])) is None
    assert pipeline._spine._plain(float("inf")) is None
    assert spine.as_json()["vertebrae"][0]["paths"]["left"]["p_no_breach"] is None


def test_a_path_of_unknown_clearance_is_not_feasible(spine):
    path = spine.vertebrae[0].paths[0].path
    assert not pipeline.PlannedPath(path, jnp.asarray(jnp.nan)).feasible


def test_a_file_that_cannot_be_written_leaves_the_old_one(spine, tmp_path, monkeypatch):
    spine.save(tmp_path)
    before = (tmp_path / "spine.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        spine.save(tmp_path)
    assert (tmp_path / "spine.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
