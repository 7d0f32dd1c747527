"""Landmarks and paths: known places on a phantom, golden order and sides on the templates."""

import numpy as np
import pytest

from dartjax import mesh, ssm
from dartjax.data.packaged import _shape_models as data
from dartjax.observations import LANDMARK_NAMES
from dartjax.ssm._voxels import inner_distance, solid_of
from tests.ssm import phantom

LEVELS = [*(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6))]


@pytest.fixture(scope="module")
def annotation():
    return ssm.annotate(*phantom.vertebra())


def test_landmarks_of_the_phantom(annotation):
    x, y, z = (phantom.PEDICLE[axis] for axis in "xyz")
    expected = {
        "superior_endplate_center": (0, 0, phantom.BODY["height"]),
        "inferior_endplate_center": (0, 0, -phantom.BODY["height"]),
        "anterior_wall_center": (0, phantom.BODY["depth"], 0),
        "left_waist": (-phantom.BODY["width"], 0, 0),
        "right_waist": (phantom.BODY["width"], 0, 0),
        "left_isthmus": (-x, y, z),
        "right_isthmus": (x, y, z),
        "spinous_tip": (0, -55, -2),
        "left_transverse_tip": (-32, -29, 4),
        "right_transverse_tip": (32, -29, 4),
    }
    for name, place in expected.items():
        found = annotation.landmarks[LANDMARK_NAMES.index(name)]
        # Along the pedicle (y) the section hardly changes near the isthmus.
        tolerance = (1.0, 1.5, 1.0) if "isthmus" in name else (1.0, 1.0, 1.0)
        assert (np.abs(found - place) < tolerance).all(), name


def test_paths_of_the_phantom(annotation):
    radius = phantom.PEDICLE["radius"]
    np.testing.assert_allclose(annotation.isthmus_width, 2 * radius, atol=1.2)
    assert (annotation.clearance > radius - 1.5).all()
    assert (annotation.clearance < radius + 0.5).all()
    (left_entry, left_target), (right_entry, right_target) = annotation.paths
    assert left_entry[0] < -10 and right_entry[0] > 10
    assert left_target[0] < 0 < right_target[0]
    depth = phantom.BODY["depth"]
    for entry, target in annotation.paths:
        assert entry[1] == pytest.approx(-32, abs=1.0)
        assert depth / 3 <= target[1] <= depth - 5.0 + 0.6
        assert abs(target[2]) < 4


def test_isthmus_contour_of_the_phantom(annotation):
    """Round, radius 4 mm, about (+-13, -18, 4); the first point outward, the seventh on top."""
    for sign, contour in zip((-1.0, 1.0), annotation.isthmus_contours, strict=True):
        offset = contour - np.array([13.0 * sign, -18.0, 4.0])
        radius = np.linalg.norm(offset, axis=1)
        assert radius.min() > 3.4 and radius.max() < 5.0
        assert sign * offset[0, 0] > 3.0 and offset[6, 2] > 3.0


def test_parts_of_the_phantom():
    from dartjax.ssm._annotate import vertebra_parts

    vertices, faces = phantom.vertebra(spacing=1.0)
    parts = vertebra_parts(vertices, faces)
    places = {
        "body": [0.0, 13.0, 0.0],
        "pedicle": [17.0, -18.0, 4.0],
        "spinous_process": [0.0, -55.0, -2.0],
        "transverse_process": [-32.0, -29.0, 4.0],
        "lamina": [8.0, -32.0, 3.0],
    }
    for name, place in places.items():
        nearest = np.argmin(np.linalg.norm(vertices - place, axis=1))
        assert ssm.PART_NAMES[parts[nearest]] == name


def test_attached_points_are_reproduced_and_carried():
    vertices, faces = phantom.vertebra(spacing=1.0)
    stretched = vertices * np.array([1.2, 0.9, 1.1]) + np.array([3.0, 4.0, 5.0])
    for point in ([0.0, 0.0, 0.0], [13.0, -20.0, 4.0], [-32.0, -29.0, 4.0]):
        index, weight = ssm.attach(vertices, faces, np.array(point))
        assert weight.sum() == pytest.approx(1.0, abs=1e-9)
        assert np.abs(weight).max() < 2.0
        np.testing.assert_allclose(weight @ vertices[index], point, atol=0.6)
        carried = point * np.array([1.2, 0.9, 1.1]) + np.array([3.0, 4.0, 5.0])
        np.testing.assert_allclose(weight @ stretched[index], carried, atol=0.7)


@pytest.mark.parametrize("level", LEVELS)
def test_template_sides_and_places(level):
    model = data.load_shape_model(level)
    points = np.asarray(ssm.landmarks(model, model.mean_shape))
    place = dict(zip(LANDMARK_NAMES, points, strict=True))
    for part in ("waist", "isthmus", "transverse_tip"):
        assert place[f"left_{part}"][0] < -5 < 5 < place[f"right_{part}"][0]
    vertices = np.asarray(model.mean_shape)
    assert place["spinous_tip"][1] < vertices[:, 1].min() + 2.0
    assert abs(place["spinous_tip"][0]) < 5
    assert place["superior_endplate_center"][2] > 5 > -5 > place["inferior_endplate_center"][2]
    assert place["anterior_wall_center"][1] > 5
    assert place["left_isthmus"][1] < -5 and place["right_isthmus"][1] < -5


@pytest.mark.parametrize("level", LEVELS)
def test_template_paths_lie_in_the_bone(level):
    model = data.load_shape_model(level)
    vertices, faces = np.asarray(model.mean_shape, float), np.asarray(model.faces)
    solid = solid_of(vertices, faces)
    depth = inner_distance(solid.occupancy) * solid.spacing
    paths = np.asarray(ssm.paths(model, model.mean_shape), float)
    for sign, (entry, target) in zip((-1, 1), paths, strict=True):
        assert sign * entry[0] > sign * target[0] > 0
        direction = (target - entry) / np.linalg.norm(target - entry)
        along = entry + np.arange(1.5, np.linalg.norm(target - entry), 0.5)[:, None] * direction
        index = np.rint((along - solid.origin) / solid.spacing).astype(int)
        assert (depth[tuple(index.T)] > 0).all()
        front = float(ssm.landmarks(model, model.mean_shape)[2, 1])
        assert target[1] <= front - 4.5
        assert target[1] > 0


@pytest.mark.parametrize("level", LEVELS)
def test_template_surface(level):
    model = data.load_shape_model(level)
    faces = np.asarray(model.faces)
    assert model.mean_shape.shape == (2048, 3)
    assert faces.shape == (4096, 3)
    assert mesh.euler_characteristic(faces) == 0
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert 10_000 < float(mesh.volume(model.mean_shape, model.faces)) < 80_000
