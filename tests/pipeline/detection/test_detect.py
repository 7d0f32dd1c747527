"""Detection in whole radiographs of any shape: windows, pixels of the radiograph, bad input.

The network is replaced by one that finds the brightest square, so that its answers are known.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera as cameras
from dartjax import data, pipeline
from dartjax.image import Radiograph, resample
from dartjax.models import DETECTED_LEVELS, DETECTOR_PRESETS, FoundVertebrae, VertebraDetector
from dartjax.pipeline.detection import _detect as detect_module
from dartjax.pipeline.detection import _find as find_module
from dartjax.pipeline.detection import exposed_field, find_spine
from dartjax.transforms import SE3, SO3

SIZE = 64
NET = VertebraDetector(dataclasses.replace(DETECTOR_PRESETS["smoke"], image_size=SIZE))


def brightest(image, exposed):
    """Find the square of the pixels above half of the maximum."""
    image = np.asarray(image) * (np.asarray(exposed) > 0.5)
    bright = (image > 0.5 * image.max()) & (image.max() > 0.2)
    rows, columns = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
    box = np.zeros((1, 4))
    if len(rows):
        box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], float)
    nothing = np.full((1, len(DETECTED_LEVELS)), -np.log(len(DETECTED_LEVELS)))
    return FoundVertebrae(
        valid=jnp.array([bool(len(rows))]),
        score=jnp.array([0.9]),
        box=jnp.asarray(box, jnp.float32),
        body_box=jnp.asarray(box, jnp.float32),
        center=jnp.asarray(0.5 * (box[:, :2] + box[:, 2:]), jnp.float32),
        log_level=jnp.asarray(nothing, jnp.float32),
        ribs=jnp.zeros(1),
        mask=jnp.ones((1, 28, 28)),
        sacrum=jnp.zeros(()),
    )


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setattr(detect_module, "_finder", lambda weights: (NET, brightest))


def radiograph(height, width, box, value=1.0):
    """A dim image with one bright rectangle (u0, v0, u1, v1)."""
    rng = np.random.default_rng(0)
    image = 0.1 * rng.uniform(size=(height, width))
    u0, v0, u1, v1 = box
    image[v0:v1, u0:u1] = value
    return pipeline.radiograph_without_camera(image)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (120, 120, (30, 40, 54, 60)),
        (100, 120, (80, 70, 100, 94)),
        (400, 100, (40, 310, 64, 330)),  # searched in tiles, and found in two of them
        (100, 400, (210, 40, 234, 60)),
    ],
)
def test_boxes_are_in_the_pixels_of_the_radiograph(network, height, width, box):
    seen = radiograph(height, width, box)
    (found,) = pipeline.detect([seen], least_score=0.5)
    assert len(found) == 1
    pixel = max(min(height, width), 0.7 * max(height, width)) / SIZE
    np.testing.assert_allclose(found.body_box[0], box, atol=1.5 * pixel)
    middle = [0.5 * (box[0] + box[2]), 0.5 * (box[1] + box[3])]
    np.testing.assert_allclose(found.center[0], middle, atol=1.5 * pixel)
    mask = np.asarray(resample(found.mask_of(0, seen.camera), seen.camera).image) > 0.5
    true = np.zeros_like(mask)
    true[box[1] : box[3], box[0] : box[2]] = True
    assert 2.0 * (mask & true).sum() / (mask.sum() + true.sum()) > 0.8


def test_a_collimated_field_is_searched_alone(network):
    """The border of a collimator is brighter than anything inside; it is not looked at."""
    seen = radiograph(160, 160, (70, 80, 86, 96))
    image = np.full((160, 160), 5.0)
    image[40:120, 50:110] = np.asarray(seen.image)[40:120, 50:110]
    (found,) = pipeline.detect([Radiograph(jnp.asarray(image), seen.camera)], least_score=0.5)
    np.testing.assert_allclose(found.body_box[0], (70, 80, 86, 96), atol=2.0)


def test_the_field_of_an_image_without_collimation_is_all_of_it():
    rng = np.random.default_rng(1)
    assert exposed_field(rng.uniform(size=(40, 50))).all()
    assert exposed_field(np.zeros((40, 50))).all()


def test_a_mask_of_nothing_is_empty(network):
    seen = radiograph(100, 100, (30, 40, 54, 60))
    (found,) = pipeline.detect([seen], least_score=0.5)
    assert not np.asarray(found.mask_of(-1, seen.camera).image).any()


def test_nothing_is_found_below_the_least_score(network):
    (found,) = pipeline.detect([radiograph(100, 100, (30, 40, 54, 60))], least_score=0.95)
    assert len(found) == 0


def test_one_radiograph_is_refused_with_the_reason(network):
    with pytest.raises(data.DataError, match="one radiograph does not give the depth"):
        find_spine([radiograph(100, 100, (30, 40, 54, 60))])


def from_two_sides(seen):
    """The same image, with cameras 90 degrees apart."""
    turn = SE3.from_rotation(SO3.from_y_radians(jnp.pi / 2))
    other = dataclasses.replace(seen.camera, camera_from_world=turn)
    return [seen, Radiograph(seen.image, other)]


def test_radiographs_along_one_line_are_refused_with_the_reason(network):
    seen = radiograph(100, 100, (30, 40, 54, 60))
    with pytest.raises(data.DataError, match="along the same line"):
        find_spine([seen, seen])


def test_radiographs_without_a_spine_are_refused_with_the_reason(network):
    seen = radiograph(100, 100, (30, 40, 54, 60), value=0.05)
    dark = from_two_sides(Radiograph(0.1 * seen.image, seen.camera))
    with pytest.raises(data.DataError, match="no vertebra was found in radiograph 1, 2"):
        find_spine(dark)


def test_an_inverted_radiograph_is_told(network, monkeypatch):
    seen = radiograph(100, 100, (30, 40, 54, 60), value=0.05)
    monkeypatch.setattr(find_module, "_A_SPINE", 1)
    inverted = from_two_sides(
        Radiograph(-radiograph(100, 100, (30, 40, 54, 60)).image, seen.camera)
    )
    with pytest.raises(data.DataError, match="in radiograph 1, but in its negative"):
        find_spine(inverted)


@pytest.fixture(autouse=True)
def known_threshold(monkeypatch):
    card = {"threshold": 0.5, "subjects_included": []}
    monkeypatch.setattr(detect_module.data, "read_card", lambda folder: card)


def test_drawn_boxes_are_shares_of_the_image(tmp_path):
    (tmp_path / "a.txt").write_text("0 0.5 0.25 0.2 0.1\n")
    boxes = pipeline.drawn_boxes(tmp_path / "a.txt", (400, 100))
    np.testing.assert_allclose(boxes, [[40.0, 80.0, 60.0, 120.0]])
    (tmp_path / "b.txt").write_text("0 0.5 0.25 0.2\n")
    with pytest.raises(data.DataError, match="line 1"):
        pipeline.drawn_boxes(tmp_path / "b.txt", (400, 100))


def test_body_boxes_are_counted_once(network):
    box = (30, 40, 54, 60)
    (found,) = pipeline.detect([radiograph(120, 120, box)], least_score=0.5)
    rows = pipeline.body_box_rows(found, np.array([box, (80, 80, 100, 100)], float))
    assert sorted(row["kind"] for row in rows) == ["found", "missed"]
    summary = pipeline.body_box_summary([rows])
    assert summary == {"body_recall": 0.5, "body_precision": 1.0, "most_boxes": 1.0}


def test_cameras_of_windows_see_the_same_rays(network):
    """A world point has the same place in the window as its pixel of the radiograph."""
    seen = radiograph(400, 100, (40, 310, 64, 330))
    field = np.ones((400, 100), bool)
    point = jnp.array([[3.0, -20.0, 800.0]])
    whole = np.asarray(cameras.project(seen.camera, point))
    for window, _ in detect_module._windows(field, seen.camera, SIZE):
        own = np.asarray(cameras.project(window, point))
        np.testing.assert_allclose(cameras.reproject(own, window, seen.camera), whole, atol=1e-2)
        assert window.image_size == (SIZE, SIZE)
