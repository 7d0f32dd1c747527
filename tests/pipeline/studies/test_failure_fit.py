"""Fit of the failure model: cross-validation by subject."""

import numpy as np

from dartjax import pipeline
from tests.pipeline.studies.failure_trials import trials


def test_a_subject_is_held_out_of_its_own_prediction():
    """Features that identify the subject predict failures of this subject only."""
    found = trials(120, 3)
    features = np.zeros_like(found.features)
    failed = found.subject == "synth0001"
    features[:, 0] = failed
    _, chance = pipeline.cross_validate_failure_model(features, failed, found.subject)
    assert chance[failed].max() < 0.5


def test_too_few_failures_give_no_auroc():
    failed = np.arange(100) < 29
    row = pipeline.failure_auroc(np.linspace(1.0, 0.0, 100), failed)
    assert np.isnan(row["failure_auroc"])
    assert "29 of 100" in row["failure_auroc_reason"]
    assert pipeline.failure_auroc(np.linspace(1.0, 0.0, 100), np.arange(100) < 30) == {
        "failure_auroc": 1.0
    }
