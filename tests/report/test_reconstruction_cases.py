"""From answers to the results of a subject, its rows and the report."""

import json
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, data, report, transforms
from dartjax.cli import RunContext
from dartjax.image import Radiograph, Volume
from dartjax.pipeline import Answers, QualityAssessment, Study, _task
from dartjax.report import _reconstruction, _reconstruction_cases
from experiments.reconstruct import units
from experiments.reconstruct.sources import Source
from tests.pipeline.vertebrae import answer_of, two_tasks


@pytest.fixture(scope="module")
def tasks():
    return two_tasks()


@pytest.fixture(scope="module")
def answers(tasks):
    """Answers of a method that knows the ground truth, and their assessments."""
    ours = [_task.estimate_of(answer_of(task)) for task in tasks]
    along = np.array([[1.0, 2.0], [3.0, 4.0]])
    assessed = [QualityAssessment(0.25, np.full(4, 0.5), along, np.eye(21))] * 2
    flat = jnp.zeros((64, 64))
    view = camera.from_carm(
        transforms.carm_rotation(0.3, 0.1),
        tasks[0].truth.pose.translation(),
        pixel_spacing=4.0,
        image_size=(64, 64),
    )
    radiographs = {pair: [Radiograph(flat, view)] for pair in (0, 1)}
    return Answers(tasks, {"perfect": ours}, {"perfect": 0.5}, radiographs, assessed)


def test_rows_hold_grades_paths_and_assessments(answers):
    grades = _reconstruction_cases.grade_answers(answers)
    assert list(grades) == ["start", "perfect", "oracle"]
    first, second = _reconstruction_cases.case_rows(answers, "perfect", grades)
    assert first["dice"] > 0.99 and first["succeeded"] and first["status"] == "converged"
    assert first["masd_start_mm"] > 0.5 > first["masd_mm"]
    assert first["failure_probability"] == 0.25 and first["path_std_mm"] == [[1.0, 2.0], [3.0, 4.0]]
    assert first["vertex_std_mm"] == 0.5
    assert np.isnan(second["dice"]) and second["dice_reason"] == "too little"
    assert not second["succeeded"] and second["status"] == "abstained: too little"
    assert second["path_left_world_mm"] is None
    assert second["oracle_dice"] > 0.99  # what the model could reach is graded all the same


@pytest.fixture(scope="module")
def work(answers, tmp_path_factory):
    """A folder with the unit of these answers and one of a scan that could not be used."""
    root = tmp_path_factory.mktemp("units") / "work"
    study = Study(pairs=2)
    empty = Volume(jnp.zeros((2, 2, 2)), jnp.eye(4))
    labels = np.zeros((2, 2, 2), np.uint8)
    case = data.Case("a", empty, labels, ("T9",), {}, "solids", "synthetic", "beef")
    broken = Source("b", "solids", "synthetic", lambda: pytest.fail("not read"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "headline", "perfect")

        def load():
            warnings.warn("a_ct.nii.gz: no orientation", stacklevel=1)
            return case

        source = Source("a", "solids", "synthetic", load)
        sources = [source, broken]
        units.begin(root, sources, study, "abc")
        with pytest.warns(UserWarning, match="no orientation"):
            units.make(root, source, lambda _: answers, study, shown=True, strict=False)
    folder = units.folder_of(root, "b")
    folder.mkdir(parents=True)
    report.failed_subject_writer("b", "no bone in it")(folder)
    return root


def test_the_unit_holds_what_the_report_needs(work):
    unit = units.read(work, "a")
    names = {file.name for file in unit.folder.iterdir()}
    meshes = {"a_T9_truth.ply", "a_T9_pair1.ply"}
    assert names == {"unit.json", "pair1_view1.png", "pair2_view1.png", *meshes}
    assert list(unit.paths) == ["a_T9_pair1"]
    assert np.isnan(unit.cases[1]["dice"]) and unit.cases[0]["dice"] > 0.99


def test_the_report_is_written_from_units_alone(work, tmp_path):
    config = {"commit": "abc"}
    ctx = RunContext(0, "default", tmp_path, tmp_path, config)
    finished = [units.read(work, name) for name in ("a", "b")]
    record = ctx.record(
        dataset="solids",
        dataset_kind="synthetic",
        subjects=["a"],
        n_vertebrae=1,
        ssm_excludes=[],
        nsd_tolerance_mm=1.0,
    )
    ctx.save_metrics(record, *_reconstruction.write_graded(tmp_path, record, finished, "perfect"))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    summary = metrics["summary"]
    wanted = {
        "coverage": 0.5,
        "dice_mean": metrics["cases"][0]["dice"],
        "dice_mean_failures_zero": 0.5 * metrics["cases"][0]["dice"],
        "oracle_dice_mean": metrics["cases"][0]["oracle_dice"],
        "seconds_per_vertebra": 0.5,
        "subjects_failed": 1,
    }
    assert {key: summary[key] for key in wanted} == pytest.approx(wanted)
    assert summary["failure_auroc"] is None and "at least 30" in summary["failure_auroc_reason"]
    assert metrics["cases"][1]["dice"] is None
    first, second = (
        json.loads((tmp_path / "spines" / f"a_pair{pair}.json").read_text())["vertebrae"][0]
        for pair in (1, 2)
    )
    assert (tmp_path / "spines" / first["mesh"]).is_file() and first["p_failure"] == 0.25
    assert first["paths"]["left"]["feasible"] in (True, False)
    assert second["abstained"] and second["mesh"] is None and second["paths"] is None
    assert metrics["cases"][1]["dice_reason"] == "too little"
    tables = (tmp_path / "tables.md").read_text()
    assert "| b | no bone in it |" in tables and "| a | a_ct.nii.gz: no orientation |" in tables
    page = (tmp_path / "report.html").read_text()
    assert "a, views 1" in page and "could not be used" in page and "1 of 2 scans are" in page
    assert sorted(p.name for p in (tmp_path / "meshes").iterdir()) == [
        "a_T9_pair1.ply",
        "a_T9_truth.ply",
    ]
    assert list(json.loads((tmp_path / "paths.json").read_text())["paths"]) == ["a_T9_pair1"]
