"""Detections of a known vertebra: crops, starts, and abstentions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, registration, transforms
from dartjax.image import Radiograph
from dartjax.pipeline import _starts, _task
from dartjax.registration import TIERS, _presets
from dartjax.simulation import _detections, _ground_truth
from tests.pipeline import vertebrae
from tests.pipeline.vertebrae import (
    CENTER,
    MODELS,
    SURE,
    sure_detection,
    unmarked,
    unmasked,
    vertebra,
)


@pytest.fixture(scope="module")
def truth():
    return vertebra()


@pytest.fixture(scope="module")
def radiographs():
    return vertebrae.radiographs()


@pytest.fixture(scope="module")
def sure(truth, radiographs):
    return sure_detection(truth, radiographs)


def seen_of(detection, radiographs, place=CENTER):
    views = [r.camera for r in radiographs]
    centers = _starts.detected_centers(detection, views)
    return _starts.detected_observations(detection, radiographs, centers, place)


def centroid_px(mask):
    rows, columns = np.nonzero(np.asarray(mask) > 0.5)
    return np.array([columns.mean(), rows.mean()]) + 0.5


def view_of(seen, k):
    return jax.tree.map(lambda leaf: leaf[k], seen.cameras)


def test_crops_are_centred_on_the_masks(sure, truth, radiographs):
    seen = seen_of(sure, radiographs)
    for k in range(2):
        assert np.abs(centroid_px(seen.masks[k]) - _presets.CROP_PIXELS / 2).max() < 1.5
        true_px = camera.project(view_of(seen, k), truth.landmarks)
        assert np.linalg.norm(np.asarray(seen.landmarks[k] - true_px), axis=1).max() < 2.0
        true_mask = _ground_truth.true_masks(truth, [view_of(seen, k)])[0]
        overlap = 2.0 * (true_mask * np.asarray(seen.masks[k])).sum()
        assert overlap / (true_mask.sum() + np.asarray(seen.masks[k]).sum()) > 0.93


def test_crops_follow_a_wrong_detection_and_not_the_truth(sure, truth, radiographs):
    wrong = []
    for mask in sure.masks:
        moved = mask.camera.principal_point - jnp.array([40.0, 0.0])
        wrong.append(
            Radiograph(mask.image, dataclasses.replace(mask.camera, principal_point=moved))
        )
    right = seen_of(sure, radiographs)
    seen = seen_of(dataclasses.replace(sure, masks=tuple(wrong)), radiographs)
    for k in range(2):
        assert np.abs(centroid_px(seen.masks[k]) - _presets.CROP_PIXELS / 2).max() < 1.5
        apart = camera.project(view_of(seen, k), truth.landmarks) - camera.project(
            view_of(right, k), truth.landmarks
        )
        assert np.abs(np.asarray(apart) - np.array([-40.0, 0.0])).max() < 2.0


def test_without_a_mask_the_landmarks_centre_the_crop(sure, radiographs):
    seen = seen_of(unmasked(sure), radiographs)
    middle = np.asarray(seen.landmarks).mean(1)
    assert np.abs(middle - _presets.CROP_PIXELS / 2).max() < 0.1
    assert not np.asarray(seen.masks).any()


def test_without_detections_the_expected_position_centres_the_crop(sure, radiographs):
    nothing = unmarked(unmasked(sure))
    place = CENTER + np.array([12.0, 0.0, -9.0])
    seen = seen_of(nothing, radiographs, place)
    for k in range(2):
        shown = camera.project(view_of(seen, k), jnp.asarray(place, jnp.float32)[None])[0]
        assert np.abs(np.asarray(shown) - _presets.CROP_PIXELS / 2).max() < 0.1


def test_a_vertebra_without_a_pair_of_views_is_interpolated(radiographs):
    views = [r.camera for r in radiographs]
    levels, along = ["T8", "T9", "T10"], {"T8": 0.0, "T9": 25.0, "T10": 50.0}
    down = np.array([0.2, 0.1, -0.97])
    true = np.stack([CENTER + along[level] * down for level in levels])
    centers = np.stack(
        [np.asarray(camera.project(v, jnp.asarray(true, jnp.float32))) for v in views], axis=1
    )

    def found(*missing):
        gaps = centers.copy()
        gaps[list(missing)] = np.nan
        return _starts.expected_places(levels, gaps, views, along)

    assert np.abs(found() - true).max() < 0.05
    assert np.abs(found(1) - true).max() < 0.1  # between
    assert np.abs(found(2) - true).max() < 0.2  # beyond
    below = found(1, 2)[2] - true[0]
    assert np.abs(below - np.array([0.0, 0.0, -50.0])).max() < 0.1
    assert np.isfinite(found(0, 1, 2)).all()


def task_of(truth, detection, radiographs, pair=0):
    return _task.Task(
        subject="s",
        level=truth.level,
        pair=pair,
        model=truth.model,
        observations=seen_of(detection, radiographs, np.asarray(truth.pose.translation())),
        start=transforms.SE3.identity(),
        truth=truth,
        angle_deg=70.0,
    )


@pytest.mark.slow
def test_starts_with_the_help_of_neighbours_and_without_enough(truth, sure, radiographs):
    apart = -np.diff([registration.positions_mm(MODELS)[level] for level in ("T8", "T9", "T10")])
    above, below = vertebra("T8", -apart[0]), vertebra("T10", apart[1])
    seen = [
        (
            above,
            _detections.detect(above, radiographs, SURE, np.random.default_rng(1)),
            0,
        ),
        (truth, unmarked(sure), 0),  # masks alone, with neighbours
        (
            below,
            _detections.detect(below, radiographs, SURE, np.random.default_rng(2)),
            0,
        ),
        (truth, unmarked(sure), 1),  # masks alone
        (truth, unmarked(unmasked(sure), keep=1), 2),  # one landmark
    ]
    tasks, seconds = _starts.initialise_tasks([task_of(t, d, radiographs, p) for t, d, p in seen])
    assert seconds > 0.0
    assert [task.tier for task in tasks] == [TIERS[i] for i in (0, 3, 0, 3, 4)]
    assert [bool(task.abstention) for task in tasks] == [False] * 3 + [True] * 2
    assert "orientation" in tasks[3].abstention and "too little" in tasks[4].abstention

    def turned(task):
        turn = task.truth.pose.rotation().inverse() @ task.start.rotation()
        return float(np.rad2deg(transforms.rotation_angle(turn)))

    assert max(turned(tasks[0]), turned(tasks[2])) < 3.0
    assert turned(tasks[1]) < 4.0 < turned(tasks[3])
    assert "abstained" in _task.status_text(tasks[4], _task.start_estimate(tasks[4]))


@pytest.mark.parametrize(
    ("gap", "reason"),
    [
        ({"masks": 0.0}, "no view has a mask"),
        ({"images": jnp.nan}, "not finite"),
        ({}, ""),
    ],
)
def test_insufficient_evidence_leads_to_abstention(gap, reason, truth, sure, radiographs):
    seen = seen_of(sure, radiographs)
    broken = {key: getattr(seen, key).at[:].set(value) for key, value in gap.items()}
    found = _starts.insufficient_evidence(dataclasses.replace(seen, **broken), tier=0, helped=False)
    assert (reason in found) if reason else not found
    task = dataclasses.replace(task_of(truth, sure, radiographs), abstention=found)
    estimate = _task.Estimate(truth.pose, jnp.zeros(truth.model.num_modes), 0, 0.9)
    graded = _task.grade_estimate(task, estimate)
    assert np.isnan(graded["dice"]) == bool(reason)
    assert graded.get("dice_reason", "") == found


def test_an_estimate_that_is_not_finite_is_no_result(truth, sure, radiographs):
    lost = transforms.SE3.from_translation(jnp.full(3, jnp.nan))
    estimate = _task.Estimate(lost, jnp.zeros(truth.model.num_modes), _task.NOT_FINITE, np.nan)
    graded = _task.grade_estimate(task_of(truth, sure, radiographs), estimate)
    assert np.isnan(graded["dice"]) and "not finite" in graded["masd_mm_reason"]
