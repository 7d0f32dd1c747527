"""Clearance and corridors in solids with known clearance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import mesh as meshes
from dartjax.observations import NeedlePath
from dartjax.planning import (
    DistanceField,
    best_corridor,
    clearance,
    distance_field_from_mesh,
    distance_field_from_solid,
    signed_distance,
)
from tests.gradients import assert_gradient
from tests.shapes import box, sphere

RADIUS = 2.5


def field_of(function, low, high, spacing=1.0, dtype=np.float32):
    """A field sampled from an analytic signed distance of points (n, 3)."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    shape = tuple((np.round((high - low) / spacing) + 1).astype(int).tolist())
    points = low + spacing * np.indices(shape).reshape(3, -1).T
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low
    values = np.asarray(function(points), dtype).reshape(shape)
    return DistanceField(jnp.asarray(values), jnp.asarray(affine, values.dtype))


def slab(points):
    """Bone between x = -6 and x = 6, without end along y and z."""
    return np.abs(points[:, 0]) - 6.0


def bore(points, radius=5.0, length=60.0):
    """A bone cylinder about z from z = 0 to z = 60."""
    across = np.hypot(points[:, 0], points[:, 1]) - radius
    along = np.maximum(-points[:, 2], points[:, 2] - length)
    outside = np.hypot(np.maximum(across, 0), np.maximum(along, 0))
    return np.minimum(np.maximum(across, along), 0) + outside


def pedicle(points):
    """A body of radius 18 at z = 40 reached through a bore of radius 4 about the z axis."""
    body = np.linalg.norm(points - np.array([0.0, 0.0, 40.0]), axis=1) - 18.0
    return np.minimum(body, bore(points, radius=4.0))


def needle(entry, target, radius=RADIUS):
    return NeedlePath(jnp.asarray(entry, float), jnp.asarray(target, float), jnp.asarray(radius))


def measure(entry, target, field, radius=RADIUS):
    return jax.jit(clearance)(needle(entry, target, radius), field)


@pytest.fixture(scope="module")
def bore_field():
    return field_of(bore, (-12, -12, -12), (12, 12, 72), spacing=0.5)


@pytest.fixture(scope="module")
def slab_field():
    return field_of(slab, (-20, -40, -20), (20, 40, 20))


@pytest.mark.parametrize("x", [0.0, 2.0, -3.5, 5.0])
def test_clearance_in_a_slab(slab_field, x):
    found = measure((x, -30.0, 0.0), (x, 20.0, 0.0), slab_field)
    room = 6.0 - abs(x) - RADIUS
    assert float(found.clearance) == pytest.approx(room, abs=1e-4)
    assert float(found.breach_depth) == pytest.approx(max(0.0, -room), abs=1e-4)
    assert bool(found.feasible) == (room >= 0)
    assert bool(found.tip_inside)
    assert float(found.fraction_inside) == 1.0


def test_path_through_the_wall_of_a_slab(slab_field):
    found = measure((0.0, -30.0, 0.0), (12.0, 30.0, 0.0), slab_field)
    assert float(found.clearance) == pytest.approx(-6.0 - RADIUS, abs=1e-3)
    assert not bool(found.tip_inside)
    np.testing.assert_allclose(found.tightest_point, [12.0, 30.0, 0.0], atol=1e-3)
    # The bone entry is 8 mm before the entry point, as this slab has no end: 34/69 is inside.
    length = np.hypot(12.0, 60.0)
    assert float(found.fraction_inside) == pytest.approx((length / 2 + 8) / (length + 8), abs=0.01)


@pytest.mark.parametrize("offset", [1.0, 1.5, 2.5, 3.5])
@pytest.mark.parametrize("entry_z", [0.0, 4.0, -6.0])
def test_clearance_in_a_bore(bore_field, offset, entry_z):
    found = measure((offset, 0.0, entry_z), (offset, 0.0, 50.0), bore_field)
    assert float(found.clearance) == pytest.approx(5.0 - offset - RADIUS, abs=0.02)
    # The needle enters at z = 0 wherever the given entry point lies along its axis.
    np.testing.assert_allclose(found.bone_entry, [offset, 0.0, 0.0], atol=0.02)
    assert float(found.fraction_inside) == pytest.approx(1.0, abs=0.01)  # one sample


def test_slanted_path_in_a_bore(bore_field):
    found = measure((-2.0, 0.0, 0.0), (2.5, 0.0, 45.0), bore_field)
    assert float(found.clearance) == pytest.approx(5.0 - 2.5 - RADIUS, abs=0.02)
    np.testing.assert_allclose(found.tightest_point, [2.5, 0.0, 45.0], atol=1e-3)
    assert float(found.tightest_depth) == pytest.approx(np.hypot(4.5, 45.0), abs=0.02)


def test_tip_near_the_far_wall_counts(bore_field):
    found = measure((0.0, 0.0, 0.0), (0.0, 0.0, 59.0), bore_field)
    assert float(found.clearance) == pytest.approx(1.0 - RADIUS, abs=0.02)


def test_missing_the_bone(bore_field):
    found = measure((9.0, 0.0, 0.0), (9.0, 0.0, 50.0), bore_field)
    assert float(found.clearance) == pytest.approx(-4.0 - RADIUS, abs=0.02)
    assert float(found.fraction_inside) == 0.0
    assert not bool(found.tip_inside) and not bool(found.feasible)
    np.testing.assert_allclose(found.bone_entry, [9.0, 0.0, 0.0], atol=1e-4)


@pytest.mark.parametrize(
    ("tilt_deg", "cuts_wall"), [(0, False), (45, False), (52, False), (65, True)]
)
def test_entry_cortex_is_skipped_up_to_its_stated_tilt(tilt_deg, cuts_wall):
    """A half space entered at a slant: only a cortex tilted beyond 56 degrees counts."""
    tilt = np.radians(tilt_deg)
    field = field_of(lambda p: p[:, 2] - 0.0, (-30, -10, -40), (60, 10, 20))
    direction = np.array([np.sin(tilt), 0.0, -np.cos(tilt)])
    found = measure((0.0, 0.0, 0.0), tuple(40.0 * direction), field)
    # The first counted sample is 4.5 to 5 mm past the entry.
    first = 4.5 * np.cos(tilt) - RADIUS
    assert first - 1e-4 <= float(found.clearance) <= first + 0.5
    assert (float(found.clearance) < 0) == cuts_wall


def test_thin_cylinder_gains_its_radius(bore_field):
    thick = measure((3.0, 0.0, 0.0), (3.0, 0.0, 50.0), bore_field, 2.5)
    thin = measure((3.0, 0.0, 0.0), (3.0, 0.0, 50.0), bore_field, 1.6)
    assert float(thin.clearance - thick.clearance) == pytest.approx(0.9, abs=1e-4)


def test_clearance_gradient(x64):
    field = field_of(bore, (-12, -12, -12), (12, 12, 72), spacing=0.5, dtype=np.float64)

    def room(ends):
        return clearance(needle(ends[0], ends[1]), field).clearance

    assert_gradient(room, [[-1.03, 0.52, 1.07], [2.11, 1.37, 44.91]], step=1e-6, rtol=1e-5)


def test_vmap_over_sides_and_cases(bore_field):
    entries = jnp.array([[[1.5, 0, 0], [1, 0, 0]], [[2, 0, 0], [3, 0, 0]], [[0, 1, 0], [0, 4, 0]]])
    targets = entries + jnp.array([0.0, 0.0, 50.0])[None, None]
    paths = jax.vmap(jax.vmap(needle))(entries, targets)
    over_sides = jax.vmap(clearance, in_axes=(0, None))
    found = jax.jit(jax.vmap(over_sides, in_axes=(0, None)))(paths, bore_field)
    np.testing.assert_allclose(
        found.clearance, 2.5 - np.array([[1.5, 1], [2, 3], [1, 4]]), atol=0.03
    )


@pytest.mark.slow
def test_best_corridor_finds_the_middle_of_a_pedicle():
    field = field_of(pedicle, (-22, -22, -12), (22, 22, 62))
    path = needle((3.0, -2.0, 0.0), (-2.0, 4.0, 40.0))
    given = clearance(path, field)
    corridor, found = jax.jit(best_corridor)(path, field)
    assert float(given.clearance) < 0.0
    assert float(found.clearance) == pytest.approx(1.5, abs=0.5)  # 1 mm grid about the axis
    along_pedicle = (
        corridor.entry_point[None]
        + jnp.linspace(0, 0.5, 5)[:, None] * (corridor.target_point - corridor.entry_point)[None]
    )
    assert float(jnp.abs(along_pedicle[:, :2]).max()) < 0.8
    assert abs(float(signed_distance(field, corridor.entry_point[None])[0])) < 0.05
    again = clearance(corridor, field)
    assert float(again.clearance) == pytest.approx(float(found.clearance), abs=0.05)


def test_best_corridor_stays_in_range_and_never_loses_clearance():
    field = field_of(lambda p: np.abs(p[:, 0] - 20.0) - 15.0, (-10, -40, -10), (50, 40, 10))
    path = needle((7.0, -30.0, 0.0), (7.0, 20.0, 0.0))  # clearance grows toward x = 20
    corridor, found = best_corridor(path, field, max_shift_mm=4.0)
    assert float(found.clearance) == pytest.approx(2.0 + 4.0 - RADIUS, abs=0.05)
    assert float(corridor.target_point[0]) == pytest.approx(11.0, abs=0.05)
    centred = needle((20.0, -30.0, 0.0), (20.0, 20.0, 0.0))
    kept = best_corridor(centred, field)[1]
    assert float(kept.clearance) == pytest.approx(15.0 - RADIUS, abs=1e-4)


def test_field_interpolates_through_an_oblique_affine():
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * np.array([0.7, 0.7, 2.5]), [5.0, -3.0, 40.0]
    shape = (30, 28, 9)
    normal = np.array([0.6, 0.0, 0.8])
    points = np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    field = DistanceField(
        jnp.asarray((points @ normal).reshape(shape), jnp.float32), jnp.asarray(affine, jnp.float32)
    )
    inside = np.random.default_rng(1).uniform(0, 1, (50, 3)) * (np.array(shape) - 1)
    inside = inside @ affine[:3, :3].T + affine[:3, 3]
    found = signed_distance(field, jnp.asarray(inside, jnp.float32))
    np.testing.assert_allclose(found, inside @ normal, atol=1e-3)


def test_field_grows_with_distance_outside_its_grid(slab_field):
    points = jnp.array([[26.0, 0.0, 0.0], [26.0, 40.0, 28.0]])
    found = signed_distance(slab_field, points)
    np.testing.assert_allclose(found, [14.0 + 6.0, 14.0 + 10.0], atol=1e-4)
    gradient = jax.grad(lambda p: signed_distance(slab_field, p[None])[0])(points[0])
    np.testing.assert_allclose(gradient, [1.0, 0.0, 0.0], atol=1e-4)


@pytest.mark.parametrize(
    ("spacing", "tolerance"), [((1.0, 1.0, 1.0), 1e-4), ((0.7, 0.7, 2.5), 1.25)]
)
def test_mask_field_of_a_box(spacing, tolerance):
    """Exact in isotropic voxels; within half the longest edge in anisotropic ones."""
    occupancy = np.zeros((20, 24, 16), bool)
    occupancy[5:15, 6:18, 4:12] = True
    field = distance_field_from_solid(occupancy, np.diag([*spacing, 1.0]))
    half = 0.5 * np.array(spacing)
    low, high = np.array([5, 6, 4]) * spacing - half, np.array([14, 17, 11]) * spacing + half
    index = np.indices(occupancy.shape).reshape(3, -1).T * spacing
    beyond = np.maximum(low - index, index - high)
    values = np.asarray(field.values).ravel()
    facing_a_wall = (beyond > 0).sum(1) <= 1  # not past an edge or a corner of the box
    np.testing.assert_allclose(values[facing_a_wall], beyond.max(1)[facing_a_wall], atol=tolerance)


def test_mask_field_of_a_ball_is_within_half_a_voxel():
    points = np.indices((40, 40, 40)) - 19.3
    exact = np.linalg.norm(points, axis=0) - 14.0
    field = distance_field_from_solid(exact < 0, np.eye(4))
    assert np.abs(np.asarray(field.values) - exact).max() < 0.5


def test_mesh_field_is_nearly_exact_near_the_surface():
    vertices, faces = sphere(3000, 12.0, (3.0, 4.0, -5.0))
    mesh = meshes.TriangleMesh(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces))
    field = distance_field_from_mesh(mesh, margin_mm=5.0)
    points = np.random.default_rng(0).uniform(-16, 16, (500, 3)) + np.array([3.0, 4.0, -5.0])
    exact = np.linalg.norm(points - np.array([3.0, 4.0, -5.0]), axis=1) - 12.0
    found = np.asarray(signed_distance(field, jnp.asarray(points, jnp.float32)))
    near = np.abs(exact) < 6.5  # all eight grid points within the exact band
    assert np.abs(found - exact)[near].max() < 0.1
    assert np.abs(found - exact)[~near & (exact > -10.0)].max() < 0.5 + 0.1  # half a voxel


def test_mesh_field_of_a_box():
    vertices, faces = box((10.0, 12.0, 14.0))
    mesh = meshes.TriangleMesh(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces))
    field = distance_field_from_mesh(mesh)
    points = jnp.array([[4.0, 0, 0], [9.0, 3, 0], [0, 0, 20.0], [-10.0, 1.3, 2.2]])
    np.testing.assert_allclose(signed_distance(field, points), [-6, -1, 6, 0], atol=0.01)


def test_bad_masks_are_rejected():
    with pytest.raises(ValueError, match="empty or full"):
        distance_field_from_solid(np.zeros((4, 4, 4), bool), np.eye(4))
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    with pytest.raises(ValueError, match="sheared"):
        distance_field_from_solid(np.eye(4, dtype=bool)[None].repeat(4, 0), sheared)
