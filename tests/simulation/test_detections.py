"""Simulated detections of a vertebra, and X-rays of that vertebra alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera
from dartjax.image import Radiograph
from dartjax.pipeline import _starts
from dartjax.registration import observe
from dartjax.simulation import _detections, _ground_truth
from tests.pipeline import vertebrae
from tests.pipeline.vertebrae import CENTER, SURE, vertebra


@pytest.fixture(scope="module")
def truth():
    return vertebra()


@pytest.fixture(scope="module")
def radiographs():
    return vertebrae.radiographs()


def test_isolated_x_rays_show_this_bone_alone(truth, radiographs):
    crops = [
        camera.region_around(
            r.camera, jnp.asarray(CENTER, jnp.float32), width_mm=110.0, num_pixels=128
        )
        for r in radiographs
    ]
    told = _ground_truth.isolated(truth, observe(radiographs, crops))
    images, masks = np.asarray(told.images), _ground_truth.true_masks(truth, crops)
    assert images.shape == (2, 128, 128) and masks.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(images > 0.03 * 0.5, masks)
    # Its volume: attenuation x length x area of a pixel at the vertebra, summed up.
    depth = np.array([float(camera.depth(c, truth.surface.vertices).mean()) for c in crops])
    focal = np.array([float(c.focal_length[0]) for c in crops])
    volume = images.sum(axis=(1, 2)) / 0.03 * (depth / focal) ** 2
    expected = np.asarray(truth.occupancy.values).sum()
    np.testing.assert_allclose(volume, expected, rtol=0.03)


def test_nothing_is_detected_outside_a_radiograph(truth, radiographs):
    aside = camera.crop(radiographs[0].camera, jnp.array([0.0, -500.0]), (384, 384))
    blind = Radiograph(jnp.ones((384, 384)), aside)
    found = _detections.detect(truth, [blind, radiographs[1]], SURE, np.random.default_rng(0))
    assert not np.isfinite(found.sigma[0]).any() and np.isfinite(found.sigma[1]).all()
    assert not np.asarray(found.masks[0].image).any() and np.asarray(found.masks[1].image).any()
    centers = _starts.detected_centers(found, [aside, radiographs[1].camera])
    assert np.isnan(centers[0]).all() and np.isfinite(centers[1]).all()


def test_the_stress_detector_detects_less(truth, radiographs):
    counts = []
    for detector in _detections.DETECTORS.values():
        rng = np.random.default_rng(3)
        found = [_detections.detect(truth, radiographs, detector, rng) for _ in range(8)]
        counts.append(np.mean([np.isfinite(d.sigma).mean() for d in found]))
    assert counts[0] > counts[1]
    assert counts[0] == pytest.approx(0.63, abs=0.12)
    assert counts[1] == pytest.approx(0.5, abs=0.12)
