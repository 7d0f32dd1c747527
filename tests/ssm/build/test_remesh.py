"""A symmetric triangulation: exact counts, genus, mirror, fidelity (needs the `build` extra)."""

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, mesh
from dartjax.ssm import build
from dartjax.ssm.build import _remesh
from tests import shapes
from tests.ssm import phantom

MIRROR = np.array([-1.0, 1.0, 1.0])


@pytest.mark.parametrize("count", [600, 601])
def test_symmetric_mesh_of_the_phantom(count):
    pytest.importorskip("pymeshlab")
    half = _remesh.half_surface(*phantom.vertebra(), spacing=0.8)
    found = _remesh.symmetric_mesh(half, count)
    assert found.vertices.shape == (count, 3) and found.faces.shape == (2 * count, 3)
    assert mesh.euler_characteristic(found.faces) == 0
    np.testing.assert_array_equal(found.vertices[found.mirror] * MIRROR, found.vertices)
    np.testing.assert_array_equal(found.mirror[found.mirror], np.arange(count))
    assert build.triangle_quality(found.vertices, found.faces)["folded_pairs"] == 0
    wanted, volume = (
        float(mesh.volume(jnp.asarray(vertices), jnp.asarray(faces)))
        for vertices, faces in (phantom.vertebra(), (found.vertices, found.faces))
    )
    assert volume == pytest.approx(wanted, rel=0.05)


def test_faces_of_the_halves_mirror_each_other():
    """The first half of the faces is the right side, the second its mirror image."""
    topology = data.load_template().topology
    faces, mirror = topology.faces, topology.mirror
    half = len(faces) // 2
    np.testing.assert_array_equal(mirror[faces[:half]][:, ::-1], faces[half:])


def test_surface_without_canal_is_rejected():
    with pytest.raises(ValueError, match="Euler characteristic"):
        _remesh.half_surface(*shapes.sphere(500, 10.0))


def test_half_surface_keeps_the_largest_part():
    vertices, faces = phantom.vertebra()
    debris, debris_faces = shapes.sphere(300, 3.0, center=(30.0, 10.0, 0.0))
    both = np.concatenate([vertices, debris])
    with_debris = _remesh.half_surface(
        both, np.concatenate([faces, debris_faces + len(vertices)]), spacing=0.8
    )
    alone = _remesh.half_surface(vertices, faces, spacing=0.8)
    assert len(with_debris[0]) == len(alone[0])
    assert with_debris[0][:, 0].min() == 0.0


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
    mended = _remesh.unfolded(folded, faces)
    assert len(_remesh.folded_pairs(mended, faces)) == 0
    assert _remesh.triangle_angles(mended, faces).min() >= 15.0
    displaced = np.linalg.norm(folded[0] - vertices[0])
    assert np.linalg.norm(mended[0] - vertices[0]) < 0.5 * displaced
    moved = np.linalg.norm(mended - vertices, axis=1) > 0
    assert moved.sum() < 20
