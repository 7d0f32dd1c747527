"""Reports of the failure model: thresholds, intervals and settings."""

import numpy as np
import pytest

from dartjax import data, pipeline, registration, simulation
from dartjax.pipeline.studies._failure_fit import USED_FEATURES
from experiments.common import failure_report
from experiments.evaluate_failure_model import report
from experiments.evaluate_failure_model import settings as evaluate_settings
from experiments.fit_failure_model import settings as fit_settings
from tests.pipeline.studies.failure_trials import trials


@pytest.fixture(scope="module")
def fitted():
    found = trials()
    ridge, chance = pipeline.cross_validate_failure_model(
        found.features, found.failed, found.subject
    )
    stored = pipeline.fit_calibrated_failure_model(found, chance, ridge=ridge, max_risk=0.1)
    return found, chance, stored


def test_probabilities_of_subjects_left_out(fitted):
    found, chance, _ = fitted
    assert np.isfinite(chance).all()
    assert registration.auroc(chance, found.failed) > 0.8
    rows = failure_report.reliability(chance, found.failed)
    assert sum(row["n"] for row in rows) == len(chance)
    assert all(abs(row["probability"] - row["failed"]) < 0.15 for row in rows)


def test_threshold_and_inflation_hold_on_other_cases(fitted):
    _, _, stored = fitted
    other = trials(seed=1)
    chance = pipeline.failure_probabilities(other.features, stored)
    summary = failure_report.summary_of(other, chance, stored)
    assert summary["risk_at_threshold"] < 0.16 < summary["risk_all"]
    assert 0.3 < summary["coverage_at_threshold"] < 0.95
    np.testing.assert_allclose(stored.inflation, 2.0, rtol=0.06)
    np.testing.assert_allclose(stored.path_inflation, 3.0, rtol=0.1)
    assert 0.88 < summary["vertices_in_90_interval_all"] < 0.92
    assert 0.88 < summary["path_points_in_90_interval_given"] < 0.92


def test_features_that_are_not_used_have_no_weight(fitted):
    _, _, stored = fitted
    used = np.isin(pipeline.ALL_FEATURE_NAMES, USED_FEATURES)
    assert used.sum() == len(USED_FEATURES) == 8
    assert not stored.weights[~used].any() and stored.weights[used].all()
    packaged = data.load_failure_model()
    assert not packaged.weights[~used].any() and packaged.weights[used].all()


def test_the_model_is_written_and_drawn(fitted, tmp_path):
    found, chance, stored = fitted
    card = {"name": "failure", "subjects_included": [], "max_risk": 0.1}
    stored = stored._replace(card={**card, "command": [], "quality": {}})
    data.save_failure_model(tmp_path, stored)
    again = pipeline.failure_probabilities(found.features, data.load_failure_model(tmp_path))
    np.testing.assert_allclose(
        again, pipeline.failure_probabilities(found.features, stored), rtol=1e-4, atol=1e-6
    )
    failure_report.write_figure(tmp_path / "failure.png", found, chance, stored, "test")
    assert (tmp_path / "failure.png").read_bytes().startswith(b"\x89PNG")


def test_the_choices_of_the_settings_are_those_of_the_library():
    recipes = [r for r, name in pipeline.RECIPES.items() if name in registration.FIT_OPTIONS]
    for settings in (evaluate_settings, fit_settings):
        assert list(settings.RECIPES) == recipes
    assert list(evaluate_settings.DETECTORS) == list(simulation.DETECTORS)


def test_repairs_are_counted():
    kept = pipeline.Repair("a", "T9", 0, 0.5, 0.9, 3.0, 3.0, 0.9, "first fit", 1.0, 0.9)
    spoiled = kept._replace(masd_mm=1.5, masd_recovered_mm=2.5, masd_third_view_mm=float("nan"))
    summary = report.repair_summary([kept, spoiled])
    assert (summary["n_refused"], summary["n_refused_failures"]) == (2, 1)
    assert (
        summary["failures_repaired_third_view"] == 1 and summary["failures_repaired_recovered"] == 0
    )
    assert summary["successes_spoiled_third_view"] == summary["successes_spoiled_recovered"] == 1
    assert report.repair_summary([]) == {}
