"""Evaluation of the detector: rows and figures of known detections."""

import numpy as np
import pytest

from dartjax import pipeline
from dartjax.models import DETECTED_LEVELS
from dartjax.pipeline import DetectorRows, FoundSpine, MatchedVertebra, ViewDetections, ViewTruth
from dartjax.pipeline.studies import _detection as study

LEVELS = ("T8", "T9", "T10")
SIDE = 20.0


def boxes(count, shift=0.0):
    top = 10.0 + 30.0 * np.arange(count) + shift
    left = np.full(count, 40.0)
    return np.stack([left, top, left + SIDE, top + SIDE], axis=1)


def truth(counted=(True, True, True)):
    masks = np.zeros((3, 120, 120), bool)
    for mask, (u0, v0, u1, v1) in zip(masks, boxes(3).astype(int), strict=True):
        mask[v0:v1, u0:u1] = True
    centers = 0.5 * (boxes(3)[:, :2] + boxes(3)[:, 2:])
    return ViewTruth(LEVELS, np.array(counted), masks, boxes(3), boxes(3), centers)


def found(shifts, names=LEVELS):
    own = np.concatenate([boxes(len(LEVELS), s)[i : i + 1] for i, s in enumerate(shifts)])
    logs = np.full((len(own), len(DETECTED_LEVELS)), -9.0)
    for row, name in zip(logs, names, strict=False):
        row[DETECTED_LEVELS.index(name)] = 0.0
    return ViewDetections(
        score=np.linspace(0.9, 0.6, len(own)),
        box=own,
        body_box=own,
        center=0.5 * (own[:, :2] + own[:, 2:]),
        log_level=logs,
        masks=np.ones((len(own), 28, 28)),
        sacrum=0.0,
    )


def rows_of(detections, true):
    radiograph = pipeline.radiograph_without_camera(np.zeros((120, 120)))
    return study._view_rows(detections, true, study._partners(detections, true), radiograph)


def test_found_missed_and_false_are_counted():
    rows = rows_of(found((0.0, 12.0)), truth())
    assert [row["kind"] for row in rows] == ["found", "missed", "missed", "false"]
    first = rows[0]
    assert first["mask_dice"] > 0.95 and first["body_overlap"] == pytest.approx(1.0)
    assert first["level_off"] == 0 and first["in_view"] == 3
    summary = pipeline.detector_summary(DetectorRows(rows, [], []))
    assert summary["recall"] == pytest.approx(1 / 3) and summary["precision"] == 0.5


def test_vertebrae_that_do_not_count_are_neither_missed_nor_false():
    rows = rows_of(found((0.0, 0.0)), truth(counted=(True, False, False)))
    assert [row["kind"] for row in rows] == ["found"]


def test_matches_are_right_if_all_views_show_the_same_vertebra():
    views = [found((0.0, 0.0, 0.0)), found((0.0, 0.0, 0.0))]
    index = {"T8": (0, 0), "T9": (1, 2)}
    spine = FoundSpine(
        detections={},
        starts={},
        probability={},
        matched={k: MatchedVertebra(i, np.zeros(3), 1.0) for k, i in index.items()},
        named=True,
        warnings=(),
        views=tuple(views),
    )
    rows, right = study._match_rows(spine, [truth(), truth()])
    assert right == {"T8": "T8"}
    assert [row["kind"] for row in rows] == ["matched", "matched", "not matched", "not matched"]
    summary = pipeline.detector_summary(DetectorRows([], rows, []))
    assert summary["matched_right"] == 0.5 and summary["matched_of_shown"] == pytest.approx(1 / 3)
    assert summary["level_right"] == 1.0 and summary["level_right_of_named"] == 1.0


def test_a_vertebra_matched_twice_counts_once():
    views = [found((0.0, 0.0, 0.0)), found((0.0, 0.0, 0.0))]
    spine = FoundSpine(
        detections={},
        starts={},
        probability={},
        matched={name: MatchedVertebra((0, 0), np.zeros(3), 1.0) for name in ("T8", "T9")},
        named=True,
        warnings=(),
        views=tuple(views),
    )
    rows, right = study._match_rows(spine, [truth(), truth()])
    assert right == {"T8": "T8"}
    summary = pipeline.detector_summary(DetectorRows([], rows, []))
    assert summary["matched_right"] == 0.5 and summary["matched_of_shown"] == pytest.approx(1 / 3)


def test_vertebrae_are_lost_if_no_spine_is_found():
    lost = study._lost_rows([truth(), truth(counted=(True, False, True))], ())
    assert [row["level"] for row in lost] == ["T10", "T8"]


def test_a_detection_far_from_every_body_is_of_no_vertebra():
    assert study._nearest_levels(found((0.0, 14.0)), truth()) == ["T8", None]
