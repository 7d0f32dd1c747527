"""Isthmus and corridor: on tubes of known size, and against dense searches on models."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from dartjax import data, planning, ssm
from dartjax import mesh as meshes
from dartjax.ssm import _annotate, build
from dartjax.ssm._annotate import isthmus_section
from dartjax.ssm._pedicle import _squared_distance, _winding_number
from dartjax.ssm._voxels import solid_of
from tests.gradients import assert_gradient
from tests.shapes import torus

# One program for a call instead of one for every operation.
isthmus = eqx.filter_jit(ssm.isthmus)

RADIUS, X, Z = 4.0, 13.0, 4.0  # mm
radius_of = jax.jit(ssm.corridor_radius)


def carry(vertices, faces, points):
    points = np.asarray(points, float)
    found = [ssm.attach(vertices, faces, p) for p in points.reshape(-1, 3)]
    index, weight = (
        np.stack(leaf).reshape(*points.shape[:-1], 8) for leaf in zip(*found, strict=True)
    )
    return ssm.CarriedPoints(jnp.asarray(index), jnp.asarray(weight, jnp.float32))


def phantom_model(shift=0.0, tilt=0.0):
    """Two cylinders along y as pedicles, with paths shifted and tilted sideways off their axes."""
    tube = trimesh.creation.cylinder(RADIUS, 80.0, sections=64)
    points, faces = trimesh.remesh.subdivide_to_size(tube.vertices, tube.faces, 10.0)[:2]
    turned = points[:, [0, 2, 1]] + np.array([0.0, 0.0, Z])  # a mirror image: about y
    offset = np.array([X, 0.0, 0.0])
    vertices = np.concatenate([turned - offset, turned + offset])
    faces = np.concatenate([faces, faces + len(turned)])[:, ::-1]
    angle = 2.0 * np.pi * np.arange(24) / 24
    circle = np.stack([X + RADIUS * np.cos(angle), 0 * angle - 18.0, Z + RADIUS * np.sin(angle)], 1)
    y = np.array([-30.0, 2.0])
    path = np.stack([X + shift + np.tan(tilt) * (y + 18.0), y, [Z, Z]], axis=1)
    side = np.array([[-1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    base = data.load_shape_model("L2")
    return ssm.ShapeModel(
        mean_shape=jnp.asarray(vertices, jnp.float32),
        modes=jnp.zeros((1, len(vertices), 3)),
        faces=jnp.asarray(faces),
        mirror=jnp.arange(len(vertices)),
        parts=jnp.zeros(len(vertices), int),
        landmark_points=base.landmark_points,
        backup_points=base.backup_points,
        path_points=carry(vertices, faces, path[None] * side[:, None]),
        isthmus_points=carry(vertices, faces, circle[None] * side[:, None]),
    )


@pytest.fixture(scope="module", params=[pytest.param("T6", marks=pytest.mark.slow), "L3"])
def model(request):
    return ssm.truncate(data.load_shape_model(request.param), 3)


def test_isthmus_of_a_tube():
    model = phantom_model()
    found = isthmus(model, model.mean_shape)
    np.testing.assert_allclose(found.center, [[-X, -18.0, Z], [X, -18.0, Z]], atol=0.01)
    np.testing.assert_allclose(found.normal, [[0, 1, 0]] * 2, atol=1e-3)
    np.testing.assert_allclose(found.width, 2 * RADIUS, atol=0.02)
    np.testing.assert_allclose(found.height, 2 * RADIUS, atol=0.02)
    np.testing.assert_allclose(found.area, 12 * RADIUS**2 * np.sin(np.pi / 12), rtol=0.005)


def test_corridor_in_a_tube():
    for shift in (0.0, 1.5, 6.5):  # the last one outside
        model = phantom_model(shift)
        np.testing.assert_allclose(radius_of(model, model.mean_shape), RADIUS - shift, atol=0.02)
    # A tilted path comes nearest to the wall at its front end, 11 mm before the isthmus.
    model = phantom_model(tilt=0.1)
    expected = RADIUS - 11.0 * np.sin(0.1)
    np.testing.assert_allclose(radius_of(model, model.mean_shape), expected, atol=0.03)


def test_isthmus_is_that_of_the_voxels(model):
    vertices, faces = np.asarray(model.mean_shape, float), np.asarray(model.faces)
    found, measured = isthmus(model, model.mean_shape), build.measure(vertices, faces)
    for i, side in enumerate(("left", "right")):
        section = isthmus_section(solid_of(vertices, faces), side)
        assert float(found.area[i]) == pytest.approx(section.area, rel=0.1)
        np.testing.assert_allclose(found.center[i], section.center, atol=0.5)
        assert float(found.normal[i] @ section.forward) > 0.98
        width, height = (measured[f"pedicle_{n}_{side}"].value for n in ("width", "height"))
        assert float(found.width[i]) == pytest.approx(width, abs=0.8)
        assert float(found.height[i]) == pytest.approx(height, abs=1.2)


def test_corridor_is_that_of_a_dense_search(model):
    radius = np.asarray(radius_of(model, model.mean_shape))
    surface = trimesh.Trimesh(model.mean_shape, model.faces, process=False)
    bone = meshes.TriangleMesh(model.mean_shape, model.faces)
    field = planning.distance_field_from_mesh(bone, spacing=0.5)
    center = np.asarray(isthmus(model, model.mean_shape).center, float)
    for i, (entry, target) in enumerate(np.asarray(ssm.paths(model, model.mean_shape), float)):
        axis = (target - entry) / np.linalg.norm(target - entry)
        along = (center[i] - entry) @ axis + np.arange(-6.0, 11.01, 0.2)
        points = entry + along[:, None] * axis
        exact = trimesh.proximity.closest_point(surface, points)[1].min()
        assert radius[i] == pytest.approx(exact, abs=0.02)
        sampled = planning.signed_distance(field, jnp.asarray(points, jnp.float32))
        assert radius[i] == pytest.approx(-float(sampled.max()), abs=0.3)


@pytest.mark.slow
def test_both_follow_the_surface(model):
    """Turned and shifted both stay; at twice the size the area is four times as large. (The
    stretch of the path that counts is in mm, so the radius of a larger bone is another.)"""
    turn = jnp.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    moved = model.mean_shape @ turn.T + jnp.array([[5.0, 80.0, -30.0]])
    radius = radius_of(model, model.mean_shape)
    np.testing.assert_allclose(radius_of(model, moved), radius, rtol=1e-3)
    area = isthmus(model, model.mean_shape).area
    np.testing.assert_allclose(isthmus(model, 2.0 * moved).area, 4.0 * area, rtol=1e-3)
    both = jax.vmap(lambda v: ssm.corridor_radius(model, v))(jnp.stack([model.mean_shape, moved]))
    np.testing.assert_allclose(both[0], radius, atol=1e-3)


def test_distances_and_winding_numbers_are_those_of_trimesh():
    vertices, faces = torus(10.0, 4.0)
    points = np.random.default_rng(0).uniform(-16.0, 16.0, (200, 3)) * [1.0, 1.0, 0.3]
    triangles = jnp.asarray(vertices[faces], jnp.float32)
    at = jnp.asarray(points, jnp.float32)
    found = jnp.sqrt(jnp.min(_squared_distance(at[:, None], triangles[None]), axis=1))
    surface = trimesh.Trimesh(vertices, faces)
    np.testing.assert_allclose(
        found, trimesh.proximity.closest_point(surface, points)[1], atol=1e-3
    )
    winding = jax.vmap(lambda p: _winding_number(p, triangles))(at)
    inside = trimesh.proximity.signed_distance(surface, points) > 0
    np.testing.assert_allclose(winding, inside.astype(float), atol=1e-3)


def test_a_sliver_has_the_distance_of_its_edges():
    sliver = jnp.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    distance = jax.value_and_grad(lambda p: jnp.sqrt(_squared_distance(p, sliver)))
    value, slope = distance(jnp.array([3.0, 0.0, 1.0]))
    assert float(value) == pytest.approx(np.sqrt(2.0), abs=1e-6)
    np.testing.assert_allclose(slope, np.array([1.0, 0.0, 1.0]) / np.sqrt(2.0), atol=1e-6)


def test_gradients(x64, model):
    wide = jax.tree.map(lambda a: a.astype(float) if eqx.is_inexact_array(a) else a, model)
    x = jnp.array([0.3, -0.7, 0.4])

    def lengths(b):
        section = isthmus(wide, ssm.instance(wide, b))
        shares = jnp.array([0.1, 0.2])
        return jnp.sum(shares * (section.area + section.width + 2.0 * section.height)) + jnp.sum(
            shares[:, None] * (section.center + 5.0 * section.normal)
        )

    assert_gradient(lengths, x, rtol=1e-5)
    assert_gradient(lambda b: ssm.corridor_radius(wide, ssm.instance(wide, b))[1], x, rtol=1e-5)


def test_a_sliver_that_a_plane_cuts_off_is_no_section(monkeypatch):
    model = data.load_shape_model("T9", num_modes=1)
    solid = solid_of(np.asarray(model.mean_shape, float), np.asarray(model.faces))
    true = isthmus_section(solid, "left")
    section = _annotate._section

    def with_slivers(solid, side, start, angle, offset):
        found = section(solid, side, start, angle, offset)
        return found._replace(area=0.5, width=0.3) if found and offset == 4.0 else found

    monkeypatch.setattr(_annotate, "_section", with_slivers)
    found = isthmus_section(solid, "left")
    assert found.area == pytest.approx(true.area, rel=0.05) and found.width > 3.0


def test_the_pedicles_of_t1_are_beside_the_front_of_the_canal():
    """Where the transverse process is beside the pedicle, every coronal section holds both."""
    for name in ("all", "permissive", "without_lidc0001"):
        model = data.load_shape_model("T1", path=name, num_modes=1)
        found = isthmus(model, model.mean_shape)
        center, width = np.asarray(found.center), np.asarray(found.width)
        assert (np.abs(center[:, 0]) < 17.0).all() and (center[:, 1] > -13.0).all(), name
        assert (width > 6.5).all() and (width < 11.5).all(), name
