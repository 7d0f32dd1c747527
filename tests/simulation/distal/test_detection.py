"""Scores of ball detections."""

import numpy as np
import pytest

from dartjax.simulation import ball_detector_rows
from dartjax.simulation.distal import _detection as detection

TRUTH = np.array([[10.0, 10.0], [30.0, 10.0], [50.0, 10.0], [70.0, 10.0]])


def test_recall_and_precision_of_balls_near_the_truth():
    found = np.array([[10.0, 11.0], [30.0, 10.0], [49.0, 10.0], [200.0, 200.0]])
    scores = detection._center_scores(found, TRUTH)
    assert scores == {"recall": 0.75, "precision": 0.75, "square_px": 1.0, "matched": 3}


def test_no_detection_has_precision_one():
    scores = detection._center_scores(np.zeros((0, 2)), TRUTH)
    assert scores["recall"] == 0.0 and scores["precision"] == 1.0


def test_detectors_without_scores_have_no_row():
    scores = {"recall": 0.5, "precision": 1.0, "square_px": 4.0, "matched": 4}
    (row,) = ball_detector_rows([{f"balls_{key}": value for key, value in scores.items()}])
    assert row["detector"] == "detect_balls" and row["rms_px"] == pytest.approx(1.0)
