"""Meshes against analytic solids and trimesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from dartjax import mesh as meshes
from dartjax.transforms import SE3
from tests.gradients import assert_gradient
from tests.shapes import box, sphere, torus


def shapes():
    return {
        "sphere": (*sphere(2000, 15.0, (3.0, -4.0, 5.0)), 4 / 3 * np.pi * 15.0**3, (3, -4, 5), 2),
        "box": (*box((5.0, 10.0, 15.0)), 8 * 750.0, (0, 0, 0), 2),
        "torus": (*torus(20.0, 6.0, (128, 64)), 2 * np.pi**2 * 20.0 * 36.0, (0, 0, 0), 0),
    }


@pytest.mark.parametrize("name", ["sphere", "box", "torus"])
def test_volume_centroid_and_genus(name):
    vertices, faces, volume, centroid, euler = shapes()[name]
    points, triangles = jnp.asarray(vertices, jnp.float32), jnp.asarray(faces)
    assert float(meshes.volume(points, triangles)) == pytest.approx(volume, rel=5e-3)
    np.testing.assert_allclose(meshes.solid_centroid(points, triangles), centroid, atol=2e-3)
    assert meshes.euler_characteristic(faces) == euler


def test_solid_centroid_is_not_the_surface_centroid():
    vertices, faces = box((5.0, 5.0, 5.0))
    vertices[:, 2] = np.where(vertices[:, 2] > 0, vertices[:, 2] * 3, vertices[:, 2])
    solid = trimesh.Trimesh(vertices, faces, process=False)
    found = meshes.solid_centroid(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces))
    np.testing.assert_allclose(found, solid.center_mass, atol=1e-3)
    assert abs(float(found[2]) - vertices.mean(0)[2]) > 0.3


def test_area_vectors_point_outward():
    vertices, faces = sphere(2000, 15.0)
    vectors = np.asarray(
        meshes.area_vectors(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces))
    )
    assert (np.einsum("fi,fi->f", vectors, vertices[faces].mean(1)) > 0).all()
    areas = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(areas, trimesh.Trimesh(vertices, faces).area_faces, rtol=1e-3)
    inside_out = meshes.volume(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces[:, ::-1]))
    assert float(inside_out) < 0


def test_vertex_normals_of_a_sphere_are_radial():
    center = (3.0, -2.0, 5.0)
    vertices, faces = map(jnp.asarray, sphere(4000, 10.0, center))
    vertices = vertices.astype(jnp.float32)
    normals = meshes.vertex_normals(vertices, faces)
    np.testing.assert_allclose(normals, (vertices - jnp.array([center])) / 10.0, atol=0.03)
    inside_out = meshes.vertex_normals(vertices, faces[:, ::-1])
    np.testing.assert_allclose(inside_out, -normals, atol=1e-5)


def test_volume_and_centroid_gradients(x64):
    vertices, faces = sphere(60, 10.0)
    vertices = vertices + np.random.default_rng(0).normal(0, 0.5, vertices.shape)
    triangles = jnp.asarray(faces)
    assert_gradient(lambda v: meshes.volume(v, triangles), vertices, rtol=1e-7)
    assert_gradient(lambda v: meshes.solid_centroid(v, triangles)[1], vertices, rtol=1e-5)


def test_transform_keeps_the_solid():
    vertices, faces = box((5.0, 10.0, 15.0))
    mesh = meshes.TriangleMesh(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces))
    pose = SE3.exp(jax.random.normal(jax.random.key(0), (6,)))
    moved = meshes.transform(pose, mesh)
    assert float(meshes.volume(moved.vertices, moved.faces)) == pytest.approx(6000.0, rel=1e-4)
    center = meshes.solid_centroid(moved.vertices, moved.faces)
    np.testing.assert_allclose(center, pose.translation(), atol=1e-3)


@pytest.mark.parametrize("name", ["sphere", "box", "torus"])
@pytest.mark.parametrize("spacing", [1.0, 0.7])
def test_voxelized_volume(name, spacing):
    vertices, faces, volume, *_ = shapes()[name]
    turned = trimesh.transformations.rotation_matrix(0.4, [1, 2, 3])[:3, :3]
    vertices = vertices @ turned.T + 0.123
    origin = vertices.min(0) - 2.0
    shape = tuple(np.ceil((np.ptp(vertices, axis=0) + 4.0) / spacing).astype(int).tolist())
    solid = meshes.voxelize(vertices, faces, origin, shape, spacing)
    assert solid.sum() * spacing**3 == pytest.approx(volume, rel=0.01)


def test_voxelize_agrees_with_winding_number():
    vertices, faces = torus(12.0, 5.0, (40, 24))
    origin, shape, spacing = np.array([-18.0, -18.0, -6.0]), (37, 36, 13), 1.03
    solid = meshes.voxelize(vertices, faces, origin, shape, spacing)
    centres = origin + spacing * np.indices(shape).reshape(3, -1).T
    expected = np.abs(winding_number(centres, vertices[faces])) > 0.5
    np.testing.assert_array_equal(solid.ravel(), expected)


def winding_number(points, corners):
    """Sum of the solid angles of the faces over 4 pi (Van Oosterom and Strackee 1983)."""
    total = np.zeros(len(points))
    for triangle in corners:
        a, b, c = (corner[None] - points for corner in triangle)
        la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
        above = np.einsum("ni,ni->n", a, np.cross(b, c))
        dots = [np.einsum("ni,ni->n", x, y) for x, y in ((a, b), (b, c), (c, a))]
        total += 2 * np.arctan2(above, la * lb * lc + dots[0] * lc + dots[1] * la + dots[2] * lb)
    return total / (4 * np.pi)


def test_voxelize_counts_overlap_once_and_clips_at_the_grid():
    vertices, faces = box((5.0, 5.0, 5.0), subdivisions=0)
    shift = np.array([4.0, 0.0, 0.0])
    doubled = np.concatenate([vertices, vertices + shift])
    both = np.concatenate([faces, faces + len(vertices)])
    origin = np.array([-9.5, -9.5, -9.5])
    solid = meshes.voxelize(doubled, both, origin, (24, 20, 20))
    assert solid.sum() == 14 * 10 * 10
    half = meshes.voxelize(vertices, faces, np.array([0.5, -9.5, 0.5]), (20, 20, 20))
    assert half.sum() == 5 * 10 * 5


def test_voxelize_with_vertices_on_grid_lines():
    vertices, faces = box((5.0, 5.0, 5.0))  # subdivision puts edges on whole millimetres
    solid = meshes.voxelize(vertices, faces, np.array([-10.0, -10.0, -10.0]), (21, 21, 21))
    inner = solid[6:15, 6:15, 6:15]
    assert inner.all()
    assert not solid[:5].any() and not solid[16:].any()
    assert not solid[:, :5].any() and not solid[:, 16:].any()


def test_far_from_the_origin():
    """Volume, centroid and orientation of a solid at the coordinates of a scanner."""
    vertices, faces = sphere(200, 3.0, (500.0, -800.0, 1500.0))
    points, faces = jnp.asarray(vertices, jnp.float32), jnp.asarray(faces)
    assert float(meshes.orientation(points, faces)) == 1.0
    assert float(meshes.orientation(points, faces[:, ::-1])) == -1.0
    near = meshes.volume(jnp.asarray(vertices - vertices.mean(0), jnp.float32), faces)
    assert float(meshes.volume(points, faces)) == pytest.approx(float(near), rel=1e-4)
    center = meshes.solid_centroid(points, faces)
    np.testing.assert_allclose(center, (500.0, -800.0, 1500.0), atol=2e-2)
