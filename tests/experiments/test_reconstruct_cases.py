"""From answers to a unit, its rows and the report, with a method of each kind."""

import dataclasses
import json
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, planning, ssm, transforms
from dartjax.cli import _launch as launch
from dartjax.image import Radiograph
from dartjax.pipeline import Answers, Settings, Task
from dartjax.pipeline import _joint as joint
from dartjax.pipeline import _recipes as methods
from dartjax.pipeline import _study as reconstruct_subject
from dartjax.pipeline import _task as grading
from dartjax.registration import RUNGS, Reconstruction
from dartjax.registration import _presets as methods_presets
from dartjax.report import _reconstruction as reconstruct_report
from dartjax.report import _reconstruction_cases as reconstruct_cases
from dartjax.simulation import _ground_truth as scene
from experiments.reconstruct import ablation as methods_ablation
from experiments.reconstruct import limits
from experiments.reconstruct import units as reconstruct_units
from tests.pipeline import test_starts as known
from tests.registration import scenes


def answer_of(task, status=0, coefficients=None):
    """What a perfect method says of a task."""
    return Reconstruction(
        pose=task.truth.pose,
        coefficients=jnp.zeros(task.model.num_modes) if coefficients is None else coefficients,
        loss=jnp.zeros(()),
        history=jnp.zeros(1),
        mask_agreement=jnp.full(2, 0.9),
        status=jnp.asarray(status),
    )


@pytest.fixture(scope="module")
def tasks():
    """T9 in two pairs of views; nothing was detected in the second."""
    truth = known.vertebra()
    oracle = ssm.Registration(
        landmarks=ssm.landmarks(truth.model, truth.surface.vertices),
        pose=truth.pose,
        mean_residual=0.0,
        coefficients=jnp.zeros(truth.model.num_modes),
        vertices=truth.surface.vertices,
        paths=truth.paths,
    )
    field = planning.distance_field_from_mesh(truth.surface)
    truth = known.dataclasses.replace(truth, oracle=oracle, field=field)
    seen = scenes.observations(-30.0, 50.0)
    start = transforms.perturb(truth.pose, jnp.zeros(3), jnp.array([3.0, 0.0, 0.0]))
    first = Task("a", "T9", 0, truth.model, seen, start, truth, 80.0)
    second = Task("a", "T9", 1, truth.model, seen, start, truth, 70.0, refused="too little")
    return [first, second]


@pytest.fixture(scope="module")
def answers(tasks):
    """Answers of a method that knows the truth, and judgements of them."""
    ours = [grading.estimate_of(answer_of(task)) for task in tasks]
    judged = [Judgement(0.25, (1.0, 2.0), np.full(4, 0.5))] * 2
    flat = jnp.zeros((64, 64))
    view = camera.from_carm(
        transforms.carm_rotation(0.3, 0.1),
        tasks[0].truth.pose.translation(),
        pixel_spacing=4.0,
        image_size=(64, 64),
    )
    radiographs = {pair: [Radiograph(flat, view)] for pair in (0, 1)}
    return Answers(tasks, {"perfect": ours}, {"perfect": 0.5}, radiographs, judged)


class Judgement(NamedTuple):
    probability: float
    path_std_mm: tuple
    vertex_std_mm: np.ndarray


def of_scene(models, observations, starts, order, coefficients=None):
    """What `fit_together` would return, had every vertebra stayed at its start; its status says
    whether the others may rely on it."""

    def one(start, along, present, coefficients):
        if coefficients is None:
            coefficients = jnp.zeros(models.modes.shape[1])
        agreement = jnp.ones(1)
        return Reconstruction(
            start, coefficients, along, jnp.zeros(1), agreement, present.astype(jnp.int32)
        )

    return jax.vmap(one)(starts, order.along, order.present, coefficients)


@pytest.mark.slow
def test_the_joint_fit_answers_in_the_order_of_the_tasks_scene_by_scene(tasks, monkeypatch):
    monkeypatch.setattr(joint, "_program", lambda options: of_scene)
    other = dataclasses.replace(tasks[0], pair=1, rung=RUNGS[2])
    mixed = [tasks[0], other, dataclasses.replace(tasks[0], level="T10")]
    estimates, seconds = methods.run_method(
        methods_presets.OURS, mixed, num_starts=1, seed=0, step=lambda note: None
    )
    assert [estimate.status for estimate in estimates] == [1, 0, 1]
    for task, estimate in zip(mixed, estimates, strict=True):
        np.testing.assert_allclose(estimate.pose.parameters(), task.start.parameters(), atol=1e-6)
    assert seconds >= 0.0
    begun = [answer_of(task, coefficients=jnp.full(15, float(i))) for i, task in enumerate(mixed)]
    found, _ = joint.fit_jointly(
        methods_presets.FIT_OPTIONS[methods_presets.OURS],
        mixed,
        step=lambda note: None,
        begun=begun,
    )
    for was, now in zip(begun, found, strict=True):
        np.testing.assert_array_equal(now.coefficients, was.coefficients)
        np.testing.assert_allclose(now.pose.parameters(), was.pose.parameters(), atol=1e-6)


def test_a_spine_of_unusual_size_is_flagged_as_a_whole(tasks):
    grown = dataclasses.replace(tasks[0].model, modes=tasks[0].model.mean_shape[None])
    first, second = (dataclasses.replace(tasks[0], model=grown, level=x) for x in ("T9", "T10"))

    def statuses(*sizes, status=0):
        given = [
            grading.Estimate(first.start, jnp.array([size - 1.0]), status, 0.9) for size in sizes
        ]
        return [each.status for each in grading.with_sizes_checked([first, second], given)]

    assert statuses(1.1, 1.1) == statuses(1.2, 0.9) == statuses(0.95, 0.9) == [0, 0]
    assert statuses(1.1, 1.25) == statuses(0.8, 0.85) == [grading.UNUSUAL_SIZE] * 2
    assert statuses(1.2, 1.2, status=2) == [2, 2]


def test_a_method_over_cases_is_one_function_object_for_one_setting():
    assert methods._case_fit("ncc", 1) is methods._case_fit("ncc", 1)
    assert methods._case_fit("ncc", 1) is not methods._case_fit("ncc", 2)
    rows = {*methods.CASE_BY_CASE, *methods_ablation.TOGETHER, *methods.NEEDS}
    told = {*methods_ablation.ABLATION, *methods_ablation.LIMITS, methods.ISOLATED}
    assert set(methods.RECIPES.values()) == rows - told


def test_each_row_of_the_ablation_lacks_one_thing():
    settings = Settings(baselines=False, ablation=True)
    assert settings.methods == (*methods_ablation.ABLATION, methods_presets.OURS)
    full = methods_presets.FIT_OPTIONS[methods_presets.OURS]
    lacking = {}
    for name, fitter in methods_ablation.ABLATION.items():
        options, others = fitter.args[0], fitter.keywords.get("among_others", True)
        own, whole = (dataclasses.asdict(each.weights) for each in (options, full))
        own["kinship"], whole["kinship"] = options.kinship, full.kinship
        own["others"], whole["others"] = float(others), 1.0
        lacking[name] = [term for term in whole if own[term] != whole[term]]
        assert all(own[term] == 0.0 for term in lacking[name])
    terms = ["similarity", "silhouette", "landmarks", "prior", "neighbours", "kinship", "others"]
    assert list(lacking.values()) == [[term] for term in terms]


def test_a_limit_tells_one_part_of_the_truth(tasks):
    task = tasks[0]
    told = {name: tell(task) for name, tell in limits.LIMITS.items()}
    masks = np.asarray(told["true masks"].observations.masks)
    truth = scene.true_masks(task.truth, _views_of(task))
    np.testing.assert_array_equal(masks > 0.5, truth)
    seen = told["true landmarks"].observations
    expected = camera.project(_views_of(task)[1], task.truth.landmarks)
    np.testing.assert_allclose(seen.landmarks[1], expected, atol=1e-3)
    assert np.isfinite(np.asarray(seen.landmark_sigma)).all()
    start = told["true start"].start.parameters()
    np.testing.assert_array_equal(start, task.truth.oracle.pose.parameters())
    best = ssm.instance(task.model, task.truth.oracle.coefficients)
    np.testing.assert_array_equal(told["true shape"].model.mean_shape, best)
    parts = ("observations", "start", "model")
    changed = [
        [part for part in parts if getattr(each, part) is not getattr(task, part)]
        for each in told.values()
    ]
    assert changed == [["observations"]] * 3 + [["start"], ["model"]]
    alone = [
        name
        for name, each in methods_ablation.LIMITS.items()
        if not each.args[1].neighbours_rendered
    ]
    assert alone == [limits.ISOLATION]


def test_the_answer_to_a_true_shape_is_in_the_modes_of_the_model(tasks):
    best = jnp.linspace(-1.0, 1.0, tasks[0].model.num_modes)
    oracle = tasks[0].truth.oracle._replace(coefficients=best)
    truth = dataclasses.replace(tasks[0].truth, oracle=oracle)
    task = dataclasses.replace(tasks[0], truth=truth)
    told = limits.with_true_shape(task)
    found = answer_of(told, coefficients=jnp.full(task.model.num_modes, 2.0))
    own = limits._in_own_modes(task, told, found)
    np.testing.assert_allclose(
        ssm.instance(task.model, own.coefficients),
        ssm.instance(told.model, found.coefficients),
        atol=1e-4,
    )


def _views_of(task):
    cameras = task.observations.cameras
    return [jax.tree.map(lambda leaf, k=k: leaf[k], cameras) for k in range(2)]


def test_rows_hold_grades_paths_and_judgements(answers):
    grades = reconstruct_cases.graded(answers)
    assert list(grades) == ["start", "perfect", "oracle"]
    first, second = reconstruct_cases.case_rows(answers, "perfect", grades)
    assert first["dice"] > 0.99 and first["succeeded"] and first["status"] == "converged"
    assert first["masd_start_mm"] > 0.5 > first["masd_mm"]
    assert first["failure_probability"] == 0.25 and first["path_std_mm"] == [1.0, 2.0]
    assert first["vertex_std_mm"] == 0.5
    assert np.isnan(second["dice"]) and second["dice_reason"] == "too little"
    assert not second["succeeded"] and second["status"] == "abstained: too little"
    assert second["path_left_world_mm"] is None
    assert second["oracle_dice"] > 0.99  # what the model could reach is graded all the same


@pytest.fixture(scope="module")
def work(answers, tmp_path_factory):
    """A folder with the unit of these answers and one of a scan that could not be used."""
    root = tmp_path_factory.mktemp("units") / "work"
    settings = Settings(pairs=2)
    case = types.SimpleNamespace(subject="a", parents=(), ct_hash="beef")
    broken = reconstruct_units.Source("b", "solids", "synthetic", lambda: pytest.fail("not read"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruct_subject.Settings, "headline", "perfect")
        source = reconstruct_units.Source("a", "solids", "synthetic", lambda: case)
        sources = [source, broken]
        reconstruct_units.begin(root, sources, settings, "abc")
        reconstruct_units.make(root, source, lambda _: answers, settings, shown=True, strict=False)
    folder = reconstruct_units.folder_of(root, "b")
    folder.mkdir(parents=True)
    reconstruct_units._failed("b", "no bone in it")(folder)
    return root


def test_the_unit_holds_what_the_report_needs(work):
    unit = reconstruct_units.read(work, "a")
    names = {file.name for file in unit.folder.iterdir()}
    meshes = {"a_T9_truth.ply", "a_T9_pair1.ply"}
    assert names == {"unit.json", "pair1_view1.png", "pair2_view1.png", *meshes}
    assert list(unit.paths) == ["a_T9_pair1"]
    assert np.isnan(unit.cases[1]["dice"]) and unit.cases[0]["dice"] > 0.99


def test_the_report_is_written_from_units_alone(work, tmp_path):
    config = {"commit": "abc"}
    ctx = launch.RunContext(0, "default", tmp_path, tmp_path, config)
    units = [reconstruct_units.read(work, name) for name in ("a", "b")]
    record = ctx.record(
        dataset="solids",
        dataset_kind="synthetic",
        subjects=["a"],
        n_vertebrae=1,
        ssm_excludes=[],
        nsd_tolerance_mm=1.0,
    )
    reconstruct_report.write_graded(ctx, record, units, "perfect")
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
    assert metrics["cases"][1]["dice_reason"] == "too little"
    assert "| b | no bone in it |" in (tmp_path / "tables.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "a, views 1" in page and "could not be used" in page
    assert sorted(p.name for p in (tmp_path / "meshes").iterdir()) == [
        "a_T9_pair1.ply",
        "a_T9_truth.ply",
    ]
    assert list(json.loads((tmp_path / "paths.json").read_text())["paths"]) == ["a_T9_pair1"]


@pytest.mark.slow
def test_a_second_subject_compiles_no_program(tasks, monkeypatch):
    """Two subjects of different size: the function of a method is traced once for both."""
    traced = []

    def fit(model, seen, start, options):
        traced.append(options)
        return methods._from_landmarks(model, seen, start)

    monkeypatch.setattr(methods, "fit", fit)
    methods._case_fit.cache_clear()
    for subject in (tasks, [*tasks, tasks[0]], tasks[:1]):
        estimates, _ = methods.run_method(
            "ncc", subject, num_starts=1, seed=0, step=lambda note: None
        )
        assert len(estimates) == len(subject)
        assert all(np.isfinite(jax.tree.leaves(e.pose)[0]).all() for e in estimates)
    assert len(traced) == 1
    methods._case_fit.cache_clear()
