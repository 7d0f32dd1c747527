"""The run folder of a spine without ground truth."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, pipeline
from dartjax.image import Radiograph
from dartjax.pipeline import QualityAssessment, _task
from dartjax.report import metrics_text, write_spine
from tests.pipeline.vertebrae import answer_of, radiographs, two_tasks

RECORD = {
    "dataset": "user X-rays",
    "dataset_kind": "real_xray",
    "ids_hash": "0",
    "n_subjects": 1,
    "n_vertebrae": 2,
    "ssm_excludes": [],
    "ssm_leak": False,
    "seed": 0,
    "commit": "none",
    "preset": "default",
    "nsd_tolerance_mm": 1.0,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A spine with an answer and an abstention, in a folder."""
    tasks = two_tasks()
    estimates = [_task.estimate_of(answer_of(task)) for task in tasks]
    assessed = QualityAssessment(0.125, np.zeros(5), np.zeros((2, 2)), 4.0 * np.eye(21))
    answers = pipeline.AssessedAnswers(estimates, ["", "too little"], [assessed, None])
    spine = pipeline.plan_spine(
        tasks, answers, pipeline.ReconstructOptions(), warnings=["<one> view"]
    )
    out = tmp_path_factory.mktemp("run")
    views = [Radiograph(r.image * jnp.arange(384.0)[None], r.camera) for r in radiographs()]
    return out, *write_spine(out, RECORD, spine, views)


def test_the_folder_is_complete(written):
    out, summary, cases = written
    assert {path.name for path in out.iterdir()} == {
        "meshes",
        "paths.json",
        "report.html",
        "spine.json",
    }
    assert [path.name for path in (out / "meshes").iterdir()] == ["T9.ply"]
    assert summary["coverage"] == 0.5 and summary["abstained_share"] == 0.5
    metrics_text(RECORD, summary, cases)  # every number that is missing has its reason


def test_cases_say_what_is_known_and_why_not(written):
    first, second = written[2]
    assert first["status"] == "converged" and first["failure_probability"] == 0.125
    assert first["position_std_mm"] == 2.0 and "no ground truth" in first["dice_reason"]
    assert second["status"] == "abstained: too little"
    assert np.isnan(second["failure_probability"]) and second["failure_probability_reason"]
    assert second["path_left_world_mm"] is None and not second["path_left_feasible"]


def test_paths_can_be_read_by_the_robots(written):
    (plan,) = data.read_plans(written[0])
    content = json.loads((written[0] / "spine.json").read_text())
    left = content["vertebrae"][0]["paths"]["left"]
    assert plan.level == "T9"
    np.testing.assert_allclose(plan.paths[0].entry_point, left["entry_point"], atol=1e-4)


def test_the_page_names_levels_and_escapes_warnings(written):
    page = (written[0] / "report.html").read_text()
    assert "T9" in page and "&lt;one&gt; view" in page and "<one>" not in page
