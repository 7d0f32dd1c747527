"""Statistics of crops against direct formulas, and the classifier of real and synthetic crops."""

import numpy as np
import pytest

from dartjax.training import (
    STATISTICS,
    MeasuredCrops,
    compare_crops,
    crop_statistics,
    tell_apart,
)
from dartjax.training._realism import BANDS_MM, crop_features

PIXEL = 110.0 / 128.0


def test_the_entropy_is_that_of_the_histograms_of_the_tiles():
    images = np.random.default_rng(0).normal(3.0, 0.2, (3, 32, 48 - 16))
    expected = []
    for image in images:
        tiles = []
        for row in range(0, 32, 16):
            for column in range(0, 32, 16):
                values = np.floor(image[row : row + 16, column : column + 16] / 0.05)
                share = np.unique(values, return_counts=True)[1] / 256.0
                tiles.append(-(share * np.log2(share)).sum())
        expected.append(np.mean(tiles))
    np.testing.assert_allclose(crop_statistics(images, PIXEL).entropy, expected, rtol=1e-12)


def test_a_constant_image_has_no_spread_and_no_entropy():
    found = crop_statistics(np.full((2, 128, 128), 4.0), PIXEL)
    np.testing.assert_allclose(found.mean, 4.0)
    np.testing.assert_allclose([found.spread, found.entropy], 0.0, atol=1e-12)
    assert (found.gradient < -10.0).all()


@pytest.mark.parametrize("band", range(len(BANDS_MM)))
def test_a_wave_is_in_the_band_of_its_length(band):
    short, long = BANDS_MM[band]
    x = PIXEL * np.arange(128)
    wave = np.broadcast_to(np.sin(2.0 * np.pi * x / np.sqrt(short * long)), (1, 128, 128))
    gradient = crop_statistics(wave, PIXEL).gradient[0]
    assert int(np.argmax(gradient)) == band
    assert gradient[band] > np.delete(gradient, band).max() + 1.0
    doubled = crop_statistics(2.0 * wave, PIXEL).gradient[0]
    np.testing.assert_allclose(doubled[band] - gradient[band], np.log10(4.0), atol=1e-6)


def groups(shift, subjects=10, crops=30):
    """Features of real and synthetic subjects, each with its own mean."""
    rng = np.random.default_rng(1)
    own = rng.normal(size=(2 * subjects, 1, 4))
    features = own + 0.5 * rng.normal(size=(2 * subjects, crops, 4))
    features[:subjects] += shift
    subject = np.repeat(np.arange(2 * subjects), crops)
    return features.reshape(-1, 4), subject < subjects, subject


def test_different_groups_are_told_apart():
    found = tell_apart(*groups(6.0))
    assert found.accuracy > 0.99 > found.chance_high > 0.5 > found.chance_low
    assert (found.n_real, found.n_synthetic) == (300, 300)


def test_equal_groups_are_not_told_apart():
    found = tell_apart(*groups(0.0))
    assert found.chance_low <= found.accuracy <= found.chance_high


def test_features_are_finite_also_without_contrast():
    images = np.stack([np.zeros((128, 128)), np.random.default_rng(0).uniform(size=(128, 128))])
    features = crop_features(images, PIXEL)
    assert features.shape[0] == 2 and np.isfinite(features).all()


def measured(mean, crops=200, seed=0):
    """Crops of one region with their own mean."""
    rng = np.random.default_rng(seed)
    values = rng.normal(mean, 1.0, (crops, len(STATISTICS)))
    region = np.full(crops, "T5-T8")
    return MeasuredCrops(np.full(crops, "a"), region, values, values)


@pytest.mark.parametrize(("mean", "inside"), [(0.0, True), (1.0, True), (2.5, False)])
def test_a_real_median_outside_the_synthetic_spread_is_reported(mean, inside):
    rows = compare_crops(measured(mean), measured(0.0, seed=1), "synthetic")
    assert [row["statistic"] for row in rows] == list(STATISTICS)
    assert {row["region"] for row in rows} == {"T5-T8"}
    assert all(row["inside"] == inside for row in rows)
    shares = np.array([row["real_crops_inside"] for row in rows])
    assert (shares > 0.8).all() if mean == 0.0 else (shares < 0.85).all()
