import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from dartjax import camera, mesh, transforms
from dartjax.mesh import TriangleMesh
from dartjax.render import (
    Tool,
    ball,
    cannula,
    kirschner_wire,
    mesh_thickness,
    pedicle_screw,
    place_along,
    tool_thickness,
)
from dartjax.transforms import SE3

thickness_of_tool = jax.jit(tool_thickness)
TOOLS = {
    "cannula": cannula(),
    "kirschner_wire": kirschner_wire(),
    "pedicle_screw": pedicle_screw(),
    "ball": ball(),
}


def make_camera(size=(50, 60), pixel=0.5):
    return camera.from_carm(
        transforms.carm_rotation(0.5, 0.2),
        jnp.zeros(3),
        sdd=1000.0,
        source_to_isocenter=600.0,
        pixel_spacing=pixel,
        image_size=size,
    )


@pytest.mark.parametrize("name", list(TOOLS))
def test_tools_are_closed_solids(name):
    vertices, faces = (np.asarray(a) for a in (TOOLS[name].vertices, TOOLS[name].faces))
    solid = trimesh.Trimesh(vertices, faces, process=False)
    assert solid.is_watertight and solid.is_winding_consistent and solid.volume > 0.0
    assert mesh.euler_characteristic(faces) == (0 if name == "cannula" else 2)
    assert len(faces) <= 1000


def test_tools_have_their_sizes_and_frames():
    tube = TOOLS["cannula"]
    expected = np.pi / 4.0 * (4.0**2 - 3.0**2) * 150.0
    assert float(mesh.volume(tube.vertices, tube.faces)) == pytest.approx(expected, rel=1e-4)
    wire = TOOLS["kirschner_wire"]
    expected = np.pi / 4.0 * 1.6**2 * (196.0 + 4.0 / 3.0)
    assert float(mesh.volume(wire.vertices, wire.faces)) == pytest.approx(expected, rel=1e-4)
    sphere = ball(5.0)
    expected = np.pi / 6.0 * 5.0**3
    assert float(mesh.volume(sphere.vertices, sphere.faces)) == pytest.approx(expected, rel=1e-4)
    for name in ("cannula", "kirschner_wire", "pedicle_screw"):
        z = np.asarray(TOOLS[name].vertices[:, 2])
        assert z.max() == pytest.approx(0.0, abs=1e-4) and z.min() < -45.0


def ray_distances(cam, point):
    """Distance of every pixel's ray from a world point, mm, in float64."""
    pose = np.linalg.inv(np.asarray(cam.camera_from_world.as_matrix(), np.float64))
    directions = np.asarray(camera.ray_directions(cam), np.float64)
    offset = np.asarray(point, np.float64) - pose[:3, 3]
    return np.linalg.norm(np.cross(directions, offset), axis=-1)


def test_ball_has_the_chords_of_a_sphere():
    radius = 6.0
    sphere = ball(2 * radius, num_rings=24)
    center = jnp.array([2.0, -3.0, 4.0])
    moved = TriangleMesh(sphere.vertices + center[None], sphere.faces)
    cam = make_camera()
    found = np.asarray(jax.jit(mesh_thickness)(moved, cam))
    squared = radius**2 - ray_distances(cam, center) ** 2
    expected = 2.0 * np.sqrt(np.maximum(squared, 0.0))
    # A prism of 16 sides has sagittas of 2 % of its radius.
    np.testing.assert_allclose(found[squared > 4.0], expected[squared > 4.0], atol=0.6)
    assert found[squared < -4.0].max() == 0.0
    assert found.sum() == pytest.approx(expected.sum(), rel=5e-3)


@pytest.mark.parametrize("name", list(TOOLS))
def test_thickness_agrees_with_an_independent_ray_caster(name):
    tool = Tool(TOOLS[name], place_along(jnp.array([4.0, 2.0, -3.0]), jnp.array([0.5, 0.3, -0.8])))
    cam = make_camera((30, 36), 0.9)
    found = np.asarray(thickness_of_tool(tool, cam))
    moved = mesh.transform(tool.world_from_tool, tool.mesh)
    triangles = np.asarray(moved.vertices, np.float64)[np.asarray(moved.faces)]
    expected = np.zeros_like(found)
    pose = np.linalg.inv(np.asarray(cam.camera_from_world.as_matrix(), np.float64))
    source, directions = pose[:3, 3], np.asarray(camera.ray_directions(cam), np.float64)
    edges = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    for row, column in np.ndindex(*found.shape):  # Moeller and Trumbore, in float64
        direction = directions[row, column]
        across = np.cross(direction, edges[1])
        determinant = np.einsum("ni,ni->n", edges[0], across)
        offset = source - triangles[:, 0]
        safe = np.where(np.abs(determinant) < 1e-14, np.inf, determinant)
        first = np.einsum("ni,ni->n", offset, across) / safe
        around = np.cross(offset, edges[0])
        second = around @ direction / safe
        way = np.einsum("ni,ni->n", edges[1], around) / safe
        hit = (first >= 0) & (second >= 0) & (first + second <= 1) & np.isfinite(safe)
        expected[row, column] = -(np.sign(determinant) * way)[hit].sum()
    assert expected.max() > 1.5
    close = np.isclose(found, expected, atol=0.02)
    assert close.mean() > 0.995  # rays through an edge may be counted twice by the reference
    assert found.max() < 1.05 * np.median(np.sort(expected[close])[-3:])


def test_cylinder_across_the_beam_has_its_chord():
    cam = make_camera()
    beam = np.asarray(cam.beam)
    across = jnp.asarray(np.cross(beam, [0.0, 0.0, 1.0]))
    wire = kirschner_wire(diameter=5.0, length=80.0)
    tool = Tool(wire, place_along(40.0 * across / jnp.linalg.norm(across), across))
    found = np.asarray(thickness_of_tool(tool, cam))
    row, column = 25, 30  # the central ray passes between four pixels, 0.4 mm off the axis
    assert found[row, column] == pytest.approx(5.0, rel=0.03)
    tube = Tool(cannula(5.0, 4.0, 80.0), tool.world_from_tool)
    hollow = np.asarray(thickness_of_tool(tube, cam))
    assert hollow[row, column] == pytest.approx(1.0, rel=0.06)
    # A line across the tube meets its cross-section's area, whatever the pixels.
    spacing = 0.5 * 600.0 / 1000.0
    across_axis = hollow[:, column].sum() * spacing * abs(_cosine_to_rows(cam, across))
    assert across_axis == pytest.approx(np.pi * (2.5**2 - 2.0**2), rel=0.05)


def _cosine_to_rows(cam, axis):
    """Cosine between the image's columns and the normal of an axis in the image plane."""
    in_camera = np.asarray(cam.camera_from_world.rotation().as_matrix()) @ np.asarray(axis)
    return in_camera[0] / np.linalg.norm(in_camera[:2])


def test_no_leaks_at_any_pixel():
    # Two halves of a coin, thick enough that a lost crossing would show.
    sphere = ball(20.0, num_rings=16)
    cam = make_camera((32, 32), 0.5)

    @jax.jit
    def thickness(shift):
        return mesh_thickness(TriangleMesh(sphere.vertices + shift[None], sphere.faces), cam)

    for shift in np.random.default_rng(0).normal(size=(8, 3)) * 0.3:
        found = np.asarray(thickness(jnp.asarray(shift, jnp.float32)))
        assert found.min() > 10.0 and found.max() < 20.7


def test_gradient_in_the_pose():
    wire = TOOLS["ball"]
    big = TriangleMesh(4.0 * wire.vertices, wire.faces)
    cam = make_camera((20, 20), 1.0)

    @jax.jit
    def mean(x):
        pose = SE3.exp(x) @ cam.camera_from_world
        moved = dataclasses.replace(cam, camera_from_world=pose)
        u, v = jnp.meshgrid(jnp.linspace(-1.0, 1.0, 20), jnp.linspace(-1.0, 1.0, 20))
        return jnp.sum((u + 0.3 * v**2) * mesh_thickness(big, moved))

    gradient = np.asarray(jax.jit(jax.grad(mean))(jnp.zeros(6)))
    steps = 0.05 * jnp.eye(6)[:3]
    numeric = [float(mean(step) - mean(-step)) / 0.1 for step in steps]
    assert np.isfinite(gradient).all() and np.abs(gradient[:3]).max() > 100.0
    scale = np.abs(gradient[:3]).max()
    np.testing.assert_allclose(gradient[:3], numeric, atol=0.04 * scale)


def test_mesh_behind_the_source_gives_nothing_and_vmap_works():
    cam = make_camera((10, 10))
    behind = TriangleMesh(TOOLS["ball"].vertices + cam.source[None], TOOLS["ball"].faces)
    assert not np.any(jax.jit(mesh_thickness)(behind, cam))
    tips = jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    render = lambda tip: tool_thickness(  # noqa: E731
        Tool(TOOLS["ball"], SE3.from_translation(tip)), cam
    )
    batch = jax.jit(jax.vmap(render))(tips)
    render = jax.jit(render)
    for found, tip in zip(batch, tips, strict=True):
        np.testing.assert_allclose(found, render(tip), atol=1e-4)


def test_a_mesh_inside_out_is_turned():
    solid = TOOLS["ball"]
    inward = TriangleMesh(solid.vertices, solid.faces[:, ::-1])
    view, thickness = make_camera((16, 16)), jax.jit(mesh_thickness)
    expected = thickness(solid, view)
    assert float(expected.max()) > 0.5
    np.testing.assert_allclose(thickness(inward, view), expected, atol=1e-3)
    lost = TriangleMesh(solid.vertices.at[0].set(jnp.nan), solid.faces)
    assert np.isnan(thickness(lost, view)).any()


def test_place_along_points_the_tip():
    for direction in ([0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [-0.3, 0.9, 0.2]):
        pose = place_along(jnp.array([1.0, 2.0, 3.0]), jnp.array(direction))
        matrix = np.asarray(pose.as_matrix())
        unit = np.array(direction) / np.linalg.norm(direction)
        np.testing.assert_allclose(matrix[:3, 2], unit, atol=1e-6)
        np.testing.assert_allclose(matrix[:3, 3], [1.0, 2.0, 3.0])
        assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1.0, abs=1e-5)


def test_bad_sizes_are_rejected():
    with pytest.raises(ValueError, match="wall is -1 mm"):
        cannula(3.0, 4.0)
    with pytest.raises(ValueError, match="shaft is"):
        kirschner_wire(length=3.0)
    with pytest.raises(ValueError, match="diameter is 0"):
        ball(0.0)
    with pytest.raises(ValueError, match="shaft is"):
        pedicle_screw(length=5.0)
