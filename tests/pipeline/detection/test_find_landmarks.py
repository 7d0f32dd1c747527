"""Landmarks of detected vertebrae: places in the radiograph, deviations, swaps, empty views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera as cameras
from dartjax.anatomy import LANDMARK_NAMES
from dartjax.image import Radiograph
from dartjax.models import FoundLandmarks
from dartjax.observations import Detection
from dartjax.pipeline.detection import _landmarks as module
from dartjax.pipeline.detection import with_landmarks
from dartjax.registration import CROP_PIXELS, CROP_WIDTH_MM
from tests.pipeline import vertebrae

SCALE = 1.5
LEFT = LANDMARK_NAMES.index("left_waist")
RIGHT = LANDMARK_NAMES.index("right_waist")


def answer(swapped=-5.0, mask=-4.0):
    """Landmarks in a row through the crop; a deviation of 2 px, but 90 px of the first."""
    along = np.linspace(20.0, 110.0, 10)
    one = FoundLandmarks(
        landmarks=jnp.asarray(np.stack([along, np.full(10, 64.0)], axis=1), jnp.float32),
        log_sigma=jnp.log(jnp.full(10, 2.0)).at[0].set(jnp.log(90.0)),
        swapped=jnp.full(3, swapped),
        heat=jnp.zeros((10, 64, 64)),
        mask=jnp.full((64, 64), mask),
    )

    def find(images, exposed, axes):
        return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], len(images), axis=0), one)

    return find


@pytest.fixture
def scene():
    truth = vertebrae.vertebra()
    radiographs = vertebrae.radiographs()
    place = np.asarray(truth.pose.translation(), float)
    found = vertebrae.sure_detection(truth, radiographs)
    nothing = np.full_like(found.sigma, np.inf)
    return radiographs, Detection(found.landmarks * 0.0, nothing, found.masks), place


def run(scene, monkeypatch, **changes):
    radiographs, detection, place = scene
    monkeypatch.setattr(module, "_finder", lambda weights: (answer(**changes), SCALE))
    return with_landmarks(radiographs, [detection], place[None], weights="none")[0]


def test_landmarks_are_in_the_pixels_of_the_radiographs(scene, monkeypatch):
    found = run(scene, monkeypatch)
    crops = module._crops(scene[0], [scene[1]], scene[2][None])
    assert [(i, k) for i, k, _ in crops] == [(0, 0), (0, 1)]
    for _, k, crop in crops:
        back = cameras.reproject(found.landmarks[k], scene[0][k].camera, crop)
        np.testing.assert_allclose(back[:, 0], np.linspace(20.0, 110.0, 10), atol=0.05)
        np.testing.assert_allclose(back[:, 1], 64.0, atol=0.05)


def test_deviations_are_in_mm_and_calibrated(scene, monkeypatch):
    found = run(scene, monkeypatch)
    assert np.isinf(found.sigma[:, 0]).all()
    np.testing.assert_allclose(
        found.sigma[:, 1:], SCALE * 2.0 * CROP_WIDTH_MM / CROP_PIXELS, rtol=1e-5
    )


def test_exchanged_sides_are_undone(scene, monkeypatch):
    straight, undone = run(scene, monkeypatch), run(scene, monkeypatch, swapped=5.0)
    np.testing.assert_allclose(undone.landmarks[:, LEFT], straight.landmarks[:, RIGHT], atol=1e-6)
    np.testing.assert_allclose(undone.landmarks[:, RIGHT], straight.landmarks[:, LEFT], atol=1e-6)


def test_an_empty_mask_does_not_replace_that_of_the_detector(scene, monkeypatch):
    kept = run(scene, monkeypatch)
    assert all(map(np.array_equal, _images(kept), _images(scene[1])))
    replaced = run(scene, monkeypatch, mask=4.0)
    assert all(np.asarray(image).min() > 0.9 for image in _images(replaced))


def _images(detection):
    return [np.asarray(mask.image) for mask in detection.masks]


def test_a_view_without_mask_has_no_landmarks(scene, monkeypatch):
    radiographs, detection, place = scene
    first = detection.masks[0]
    empty = Radiograph(jnp.zeros_like(first.image), first.camera)
    detection = Detection(detection.landmarks, detection.sigma, (empty, detection.masks[1]))
    found = run((radiographs, detection, place), monkeypatch)
    assert np.isinf(found.sigma[0]).all() and np.isfinite(found.sigma[1, 1:]).all()
