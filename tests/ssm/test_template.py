"""From a surface to a template: exact counts, genus, fidelity (needs the `build` extra)."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dartjax import mesh, ssm
from dartjax.ssm import _remesh, _template
from tests import shapes
from tests.ssm import phantom


def test_template_of_the_phantom():
    pytest.importorskip("pymeshlab")
    vertices, faces = phantom.vertebra()
    rotation = Rotation.from_euler("x", 10, degrees=True).as_matrix()
    built = ssm.build_template(vertices @ rotation.T + 50.0, faces, 1024)
    model, quality = built.model, built.quality
    assert model.mean_shape.shape == (1024, 3) and model.faces.shape == (2048, 3)
    assert mesh.euler_characteristic(np.asarray(model.faces)) == 0
    assert quality["distance_to_source_mm"] < 0.4
    assert abs(quality["volume_error_percent"]) < 1.5
    assert quality["flipped_pairs"] == 0
    isthmus = np.asarray(ssm.landmarks(model, model.mean_shape))[5]
    np.testing.assert_allclose(isthmus, built.annotation.landmarks[5], atol=0.01)


def test_surface_without_canal_is_refused():
    with pytest.raises(ValueError, match="Euler characteristic 2"):
        _remesh.clean_surface(*shapes.sphere(500, 10.0))


def test_clean_surface_keeps_the_largest_part_and_the_volume():
    vertices, faces = phantom.vertebra()
    debris, debris_faces = shapes.sphere(300, 3.0, center=(30.0, 10.0, 0.0))
    both = np.concatenate([vertices, debris])
    cleaned = _remesh.clean_surface(both, np.concatenate([faces, debris_faces + len(vertices)]))
    assert mesh.euler_characteristic(cleaned[1]) == 0
    wanted, found = _remesh._volume(vertices, faces), _remesh._volume(*cleaned)
    assert found == pytest.approx(wanted, rel=0.02)


def test_triangle_angles_of_a_known_triangle():
    corners = np.array([[0.0, 0, 0], [1.0, 0, 0], [0.0, np.sqrt(3.0), 0]])
    np.testing.assert_allclose(
        _remesh.triangle_angles(corners, np.array([[0, 1, 2]])), [[90.0, 60.0, 30.0]]
    )


def test_folds_are_found_and_removed():
    vertices, faces = shapes.torus(20.0, 6.0, (24, 12))
    assert len(_remesh.folded_pairs(vertices, faces)) == 0
    folded = vertices.copy()
    ring = faces[np.any(faces == 0, axis=1)]
    across = vertices[np.setdiff1d(ring, [0])].mean(0) - vertices[0]
    tangent = vertices[ring[0][ring[0] != 0][0]] - vertices[0]
    folded[0] = vertices[0] + across + 2.0 * tangent
    assert len(_remesh.folded_pairs(folded, faces)) > 0
    mended = _remesh._unfolded(folded, faces)
    assert len(_remesh.folded_pairs(mended, faces)) == 0
    assert _remesh.triangle_angles(mended, faces).min() >= 15.0
    displaced = np.linalg.norm(folded[0] - vertices[0])
    assert np.linalg.norm(mended[0] - vertices[0]) < 0.5 * displaced
    moved = np.linalg.norm(mended - vertices, axis=1) > 0
    assert moved.sum() < 20


def test_surface_samples_are_uniform_and_on_the_surface():
    vertices, faces = shapes.sphere(4000, 10.0)
    points, normals = _template.sample_surface(vertices, faces, 20_000, seed=0)
    radius = np.linalg.norm(points, axis=1)
    assert radius.min() > 9.95 and radius.max() <= 10.0 + 1e-9
    assert (np.sum(points * normals, axis=1) / radius).min() > 0.99
    # By area a zone of a sphere holds a share equal to its height over the diameter.
    for low, high in ((-10, -5), (-5, 3), (3, 10)):
        share = np.mean((points[:, 2] >= low) & (points[:, 2] < high))
        assert share == pytest.approx((high - low) / 20.0, abs=0.01)
