"""The noise model of the networks has the errors of its parameters."""

import numpy as np
import pytest

from dartjax import camera as cameras
from dartjax.observations import LANDMARK_NAMES, PARTNER
from dartjax.simulation import Detector, detect_landmarks, detect_mask, is_lateral
from dartjax.ssm import landmarks, posed
from tests.registration import scenes

DRAWS = 250
QUIET = Detector(
    landmark_spread=0.0,
    confidence_spread=0.0,
    miss_rate=0.0,
    outlier_rate=0.0,
    swap_rate=0.0,
    mask_miss_rate=0.0,
)


@pytest.fixture(scope="module")
def points():
    shape = posed(scenes.model(), scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS)
    return landmarks(scenes.model(), shape)


def draws(points, detector, *, primary_deg=0.0, lateral=False):
    """Errors in mm at the landmarks' depth, and the reported standard deviations."""
    (view,) = scenes.views(primary_deg)
    rng = np.random.default_rng(0)
    found = [detect_landmarks(points, view, detector, rng, lateral=lateral) for _ in range(DRAWS)]
    pixels, sigma = (np.stack(column) for column in zip(*found, strict=True))
    depth = np.asarray(cameras.depth(view, points))[None, :, None]
    off = pixels - np.asarray(cameras.project(view, points))
    return off * depth / np.asarray(view.focal_length), sigma


def test_errors_are_normal_with_the_deviation_at_the_vertebra(points):
    off, sigma = draws(points, QUIET)
    assert np.std(off) == pytest.approx(3.0, rel=0.03)
    assert abs(np.mean(off)) < 0.15
    np.testing.assert_allclose(sigma, 3.0)


def test_reported_deviations_are_those_of_the_errors_on_average(points):
    spread = Detector(miss_rate=0.0, outlier_rate=0.0, swap_rate=0.0)
    off, sigma = draws(points, spread)
    assert np.median(sigma) == pytest.approx(3.0, rel=0.05)
    # Reported = true x lognormal(.25): the ratio's variance is exp(2 * .25^2).
    assert np.mean((off / sigma[..., None]) ** 2) == pytest.approx(np.exp(2 * 0.25**2), rel=0.05)


def test_rates_of_misses_and_outliers(points):
    _, sigma = draws(points, Detector(miss_rate=0.37))
    assert np.mean(np.isinf(sigma)) == pytest.approx(0.37, abs=0.025)
    outliers = Detector(landmark_mm=0.1, miss_rate=0.0, outlier_rate=0.08, swap_rate=0.0)
    off, _ = draws(points, outliers)
    far = np.linalg.norm(off, axis=-1) > 10.0
    assert np.mean(far) == pytest.approx(0.08, abs=0.015)
    assert np.linalg.norm(off, axis=-1)[far] == pytest.approx(20.0, abs=1.0)


def test_left_and_right_are_swapped_only_where_they_overlap(points):
    swapped = Detector(
        landmark_mm=0.01, miss_rate=0.0, outlier_rate=0.0, swap_rate=1.0, landmark_spread=0.0
    )
    off, _ = draws(points, swapped, primary_deg=90.0, lateral=False)
    assert np.abs(off).max() < 0.1
    (view,) = scenes.views(90.0)
    pixels, _ = detect_landmarks(points, view, swapped, np.random.default_rng(0), lateral=True)
    true = np.asarray(cameras.project(view, points))
    np.testing.assert_allclose(pixels, true[list(PARTNER)], atol=0.2)
    sided = ["left" in name or "right" in name for name in LANDMARK_NAMES]
    moved = np.linalg.norm(pixels - true, axis=1) > 0.5
    assert moved.any()
    assert not moved[~np.array(sided)].any()


@pytest.mark.parametrize(
    ("primary_deg", "lateral"), [(0.0, False), (55.0, False), (65.0, True), (-90.0, True)]
)
def test_lateral_views_are_recognised(primary_deg, lateral):
    (view,) = scenes.views(primary_deg)
    assert is_lateral(view) == lateral


def test_masks_have_the_dice_of_the_detector_or_are_missed():
    v, u = np.mgrid[:96, :96]
    mask = (np.hypot(u - 48, v - 48) < 28) | ((np.abs(u - 48) < 6) & (v > 40) & (v < 90))
    rng = np.random.default_rng(1)
    found = [detect_mask(mask, QUIET, rng, correlation_px=6.0) for _ in range(60)]
    dice = [2 * np.sum(mask & own) / (mask.sum() + own.sum()) for own in found]
    assert np.mean(dice) == pytest.approx(0.89, abs=0.015)
    assert np.std(dice) == pytest.approx(0.04, abs=0.015)
    blind = Detector(mask_miss_rate=1.0)
    assert not detect_mask(mask, blind, rng, correlation_px=6.0).any()
