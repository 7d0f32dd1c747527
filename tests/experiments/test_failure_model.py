"""Fitting the failure model: subjects stay apart, thresholds and intervals keep their word."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, data, transforms
from dartjax.image import Radiograph
from dartjax.pipeline import Task
from dartjax.pipeline import _assess as judgement
from dartjax.pipeline import _task as grading
from dartjax.registration import auroc, observe
from experiments.evaluate_failure_model import report as failure_report
from experiments.evaluate_failure_model import stress
from experiments.evaluate_failure_model.stress import CameraError, Trials
from experiments.fit_failure_model import __main__ as fit_failure_model
from tests.registration import scenes

NUM_FEATURES = len(judgement.ALL_FEATURE_NAMES)


def trials(num_cases=400, num_subjects=4, seed=0):
    """Answers whose failure a few features foretell, and whose errors are twice as large as the
    stated deviations (thrice for the paths)."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_cases, NUM_FEATURES))
    logit = 2.0 * features[:, 0] - 1.5 * features[:, 5] - 1.0
    failed = rng.uniform(size=num_cases) < 1.0 / (1.0 + np.exp(-logit))
    features[::7, -9:] = np.nan  # vertebrae without a scene
    std = rng.uniform(0.5, 2.0, (num_cases, 50))
    path_std = rng.uniform(0.5, 2.0, (num_cases, 2, 2, 3))
    return Trials(
        kind=np.full(num_cases, "synthetic"),
        subject=np.array([f"synth{i % num_subjects:04d}" for i in range(num_cases)]),
        level=np.full(num_cases, "T9"),
        pair=np.zeros(num_cases, int),
        detector=np.full(num_cases, "stress"),
        severity=np.zeros(num_cases),
        masd_mm=np.where(failed, 3.0, 1.0),
        features=features,
        vertex_std=std,
        vertex_error=2.0 * std * rng.normal(size=std.shape),
        path_std=path_std,
        path_error=3.0 * path_std * rng.normal(size=path_std.shape),
    )


@pytest.fixture(scope="module")
def fitted():
    found = trials()
    ridge, chance = fit_failure_model.cross_validated(found.features, found.failed, found.subject)
    stored = fit_failure_model.fitted(found, chance, ridge=ridge, max_risk=0.1)
    return found, chance, stored


def test_probabilities_of_subjects_left_out(fitted):
    found, chance, _ = fitted
    assert np.isfinite(chance).all()
    assert auroc(chance, found.failed) > 0.8
    rows = failure_report.reliability(chance, found.failed)
    assert sum(row["n"] for row in rows) == len(chance)
    assert all(abs(row["probability"] - row["failed"]) < 0.15 for row in rows)


def test_a_subject_does_not_judge_itself():
    """Features that name the subject foretell its failures, but no other's."""
    found = trials(120, 3)
    features = np.zeros_like(found.features)
    failed = found.subject == "synth0001"
    features[:, 0] = failed
    _, chance = fit_failure_model.cross_validated(features, failed, found.subject)
    assert chance[failed].max() < 0.5


def test_threshold_and_inflation_hold_on_other_cases(fitted):
    _, _, stored = fitted
    other = trials(seed=1)
    chance = judgement.probabilities(other.features, stored)
    summary = failure_report.summary_of(other, chance, stored)
    assert summary["risk_at_threshold"] < 0.16 < summary["risk_all"]
    assert 0.3 < summary["coverage_at_threshold"] < 0.95
    np.testing.assert_allclose(stored.inflation, 2.0, rtol=0.06)
    np.testing.assert_allclose(stored.path_inflation, 3.0, rtol=0.1)
    assert 0.88 < summary["vertices_in_90_interval_all"] < 0.92
    assert 0.88 < summary["path_points_in_90_interval_given"] < 0.92


def test_no_area_from_too_few_failures():
    failed = np.arange(100) < 29
    row = grading.failure_auroc(np.linspace(1.0, 0.0, 100), failed)
    assert np.isnan(row["failure_auroc"])
    assert "29 of 100" in row["failure_auroc_reason"]
    assert grading.failure_auroc(np.linspace(1.0, 0.0, 100), np.arange(100) < 30) == {
        "failure_auroc": 1.0
    }


def test_the_model_is_written_and_drawn(fitted, tmp_path):
    found, chance, stored = fitted
    card = {"name": "failure", "subjects_included": [], "max_risk": 0.1}
    stored = stored._replace(card={**card, "command": [], "quality": {}})
    data.save_failure_model(tmp_path, stored)
    again = judgement.probabilities(found.features, data.load_failure_model(tmp_path))
    np.testing.assert_allclose(
        again, judgement.probabilities(found.features, stored), rtol=1e-4, atol=1e-6
    )
    failure_report.write_figure(tmp_path / "failure.png", found, chance, stored, "test")
    assert (tmp_path / "failure.png").read_bytes().startswith(b"\x89PNG")


def test_trials_are_kept_without_pickle(tmp_path):
    found = trials(20)
    stress.save_trials(tmp_path / "trials.npz", found)
    again = stress.joined([stress.load_trials(tmp_path / "trials.npz")] * 2)
    assert len(again.failed) == 40
    np.testing.assert_array_equal(again.subject[:20], found.subject)
    np.testing.assert_array_equal(again.path_error[20:], found.path_error)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(data.DataError, match="no trials"):
        stress.load_trials(tmp_path / "bad.npz")
    stress.save_trials(tmp_path / "old.npz", found._replace(features=found.features[:, 1:]))
    with pytest.raises(data.DataError, match="other features"):
        stress.load_trials(tmp_path / "old.npz")


def task():
    """One vertebra in two views that show nothing."""
    views = [camera.resize(view, (8, 8)) for view in scenes.views(-30.0, 50.0)]
    seen = observe([Radiograph(jnp.zeros((8, 8)), view) for view in views], views)
    start = transforms.SE3.identity()
    return Task("someone", "T9", 1, scenes.model(), seen, start, None, 80.0)


def test_cameras_are_wrong_for_a_whole_scene_and_within_the_bounds():
    middle = np.asarray(scenes.TRUE_POSE.translation())
    rng = np.random.default_rng(0)
    pair = [task(), dataclasses.replace(task(), level="T10")]
    first, second = stress.with_wrong_cameras(pair, middle, 1.0, CameraError(), rng)
    moved, true = first.observations.cameras, pair[0].observations.cameras
    for a, b in zip(
        jax.tree.leaves(moved), jax.tree.leaves(second.observations.cameras), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    between = jax.vmap(lambda a, b: a.inverse() @ b)(
        moved.camera_from_world, true.camera_from_world
    )
    turn = np.rad2deg(np.linalg.norm(jax.vmap(lambda r: r.rotation().log())(between), axis=1))
    assert (turn > 0.0).all()
    assert (turn <= 3.0).all()
    shift = jax.vmap(lambda m: m.apply(jnp.asarray(middle, jnp.float32)))(between) - middle[None]
    distance = np.linalg.norm(shift, axis=1)
    assert (distance > 0.0).all()
    assert (distance <= 10.0).all()
    assert abs(turn[0] - turn[1]) > 1e-3  # every view its own


def test_no_severity_leaves_the_cameras():
    (same,) = stress.with_wrong_cameras(
        [task()], np.zeros(3), 0.0, CameraError(), np.random.default_rng(0)
    )
    before, after = (jax.tree.leaves(cast(Any, t).observations.cameras) for t in (task(), same))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
