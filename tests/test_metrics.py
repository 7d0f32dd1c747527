"""Metrics against closed forms, brute force and the `surface-distance` package."""

import jax.numpy as jnp
import numpy as np
import pytest
import surface_distance
import trimesh

from dartjax import mesh as meshes
from dartjax import metrics, transforms
from dartjax._errors import DataError
from tests.shapes import sphere, torus

PACKAGE_SPACING = 0.4  # mm


def mesh_of(vertices, faces):
    return meshes.TriangleMesh(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32))


def ring_bone(seed, scale=1.0):
    """A genus-1 shape of about a vertebra's size with smooth random bumps."""
    vertices, faces = torus(14.0, 8.0, (72, 36))
    vertices = vertices * np.array([1.1, 0.9, 1.2])
    rng = np.random.default_rng(seed)
    waves, phases = rng.normal(0, 0.12, (6, 3)), rng.uniform(0, 2 * np.pi, 6)
    bumps = np.sin(vertices @ waves.T + phases) @ rng.normal(0, scale, (6, 3))
    return vertices + bumps, faces


def brute_force_distance(points, vertices, faces):
    """Distance to the nearest of many points on every face: an upper bound."""
    n = 24
    i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    u, v = (x[i + j <= n] / n for x in (i, j))
    weights = np.stack([1 - u - v, u, v], 1)
    dense = np.einsum("sc,fcd->fsd", weights, vertices[faces]).reshape(-1, 3)
    return np.array([np.linalg.norm(dense - point, axis=1).min() for point in points])


def test_dice():
    a, b = np.zeros((2, 4, 5), bool), np.zeros((2, 4, 5), bool)
    a[0], b[0, :2] = True, True
    assert metrics.dice(a, b) == pytest.approx(2 * 10 / (20 + 10))
    assert metrics.dice(a, a) == 1.0
    assert metrics.dice(a, ~a) == 0.0
    assert np.isnan(metrics.dice(a & False, b & False))


@pytest.mark.parametrize("inner", [10.0, 15.0])
def test_concentric_spheres(inner):
    small, large = (mesh_of(*sphere(6000, radius)) for radius in (inner, 18.0))
    distances = metrics.surface_distances(small, large)
    gap = 18.0 - inner
    assert metrics.masd(distances) == pytest.approx(gap, abs=0.02)
    assert metrics.hd95(distances) == pytest.approx(gap, abs=0.03)
    assert metrics.nsd(distances, gap - 0.1) == 0.0
    assert metrics.nsd(distances, gap + 0.1) == 1.0
    assert distances.area_a == pytest.approx(4 * np.pi * inner**2, rel=0.01)


def test_shifted_spheres_follow_the_closed_form():
    """A point at angle t from the shift d is |sqrt(R^2 + d^2 + 2 R d cos t) - R| away, and
    cos t is uniform over a sphere."""
    radius, shift = 20.0, 3.0
    a = mesh_of(*sphere(8000, radius))
    b = mesh_of(*sphere(8000, radius, (0.0, 0.0, shift)))
    cosine = np.linspace(-1, 1, 200_001)
    exact = np.abs(np.sqrt(radius**2 + shift**2 + 2 * radius * shift * cosine) - radius)
    distances = metrics.surface_distances(a, b)
    assert metrics.masd(distances) == pytest.approx(exact.mean(), rel=0.005)
    assert metrics.hd95(distances) == pytest.approx(np.quantile(exact, 0.95), rel=0.005)
    assert metrics.nsd(distances, 1.0) == pytest.approx((exact <= 1.0).mean(), abs=0.005)


def test_metrics_weigh_by_area_not_by_vertices():
    """Subdividing some faces into thousands changes nothing."""
    a, b = trimesh.creation.box((20, 20, 20)), trimesh.creation.box((20, 20, 24))
    finer = a.subdivide(face_index=np.arange(2)).subdivide().subdivide()
    crowded = finer.subdivide(face_index=np.flatnonzero(finer.triangles_center[:, 0] > 5))
    results = []
    for mesh in (a, crowded):
        distances = metrics.surface_distances(
            mesh_of(mesh.vertices, mesh.faces), mesh_of(b.vertices, b.faces)
        )
        results.append([metrics.masd(distances), metrics.nsd(distances, 1.0)])
    np.testing.assert_allclose(results[0], results[1], rtol=0.01)


def test_distance_to_surface_is_exact():
    vertices, faces = ring_bone(0)
    points = np.random.default_rng(1).uniform(-28, 28, (40, 3))
    found = metrics.distance_to_surface(points, mesh_of(vertices, faces))
    upper = brute_force_distance(points, vertices, faces)
    assert (found <= upper + 1e-5).all()
    # The nearest of the brute-force points is at most 0.06 mm from the foot of the distance.
    assert (found >= np.sqrt(np.maximum(upper**2 - 0.06**2, 0)) - 0.06).all()
    np.testing.assert_allclose(found, upper, atol=0.01)


def test_distance_to_a_single_triangle():
    triangle = mesh_of([[0, 0, 0], [4, 0, 0], [0, 3, 0]], [[0, 1, 2]])
    points = np.array([[1, 1, 5], [-3, -4, 0], [2, -1, 0], [8, 0, 3], [4, 3, 0], [1, 1, 0.0]])
    expected = [5, 5, 1, 5, 12 / 5, 0]
    np.testing.assert_allclose(metrics.distance_to_surface(points, triangle), expected, atol=1e-6)


def package_input(distances):
    """Our samples in the format of the package: sorted distances with their areas."""
    a, b = np.sort(distances.a_to_b), np.sort(distances.b_to_a)
    return {
        "distances_gt_to_pred": a,
        "distances_pred_to_gt": b,
        "surfel_areas_gt": np.full(len(a), distances.area_a / len(a)),
        "surfel_areas_pred": np.full(len(b), distances.area_b / len(b)),
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_definitions_are_those_of_surface_distance(seed):
    distances = metrics.surface_distances(mesh_of(*ring_bone(0)), mesh_of(*ring_bone(seed)))
    theirs = package_input(distances)
    average = np.mean(surface_distance.compute_average_surface_distance(theirs))
    assert metrics.masd(distances) == pytest.approx(average, rel=1e-9)
    robust = surface_distance.compute_robust_hausdorff(theirs, 95)
    assert metrics.hd95(distances) == pytest.approx(robust, rel=1e-3)
    for tolerance in (0.5, 1.0, 2.0):
        overlap = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert metrics.nsd(distances, tolerance) == pytest.approx(overlap, abs=1e-9)


def voxel_distances(meshes_to_compare, spacing):
    vertices = [metrics._host(mesh)[0] for mesh in meshes_to_compare]
    low = np.minimum(*(v.min(0) for v in vertices)) - 2.0
    extent = np.maximum(*(v.max(0) for v in vertices)) + 2.0 - low
    shape = tuple(np.ceil(extent / spacing).astype(int).tolist())
    masks = [
        meshes.voxelize(*metrics._host(mesh), low, shape, spacing) for mesh in meshes_to_compare
    ]
    return surface_distance.compute_surface_distances(*masks, (spacing,) * 3)


def test_voxels_of_surface_distance_match_the_mesh_distances():
    """The package measures between the centres of the voxel corners that a surface crosses: a
    layer up to sqrt(3) voxels thick, which shortens distances by about 0.4 voxels."""
    pair = mesh_of(*ring_bone(0)), mesh_of(*ring_bone(2, scale=1.6))
    distances = metrics.surface_distances(*pair)
    theirs = voxel_distances(pair, PACKAGE_SPACING)
    masd = np.mean(surface_distance.compute_average_surface_distance(theirs))
    hd95 = surface_distance.compute_robust_hausdorff(theirs, 95)
    for found, package in ((metrics.masd(distances), masd), (metrics.hd95(distances), hd95)):
        shortened = (found - package) / PACKAGE_SPACING
        assert 0.1 < shortened < 0.7
    wider = surface_distance.compute_surface_dice_at_tolerance(theirs, 2.0 - 0.4 * PACKAGE_SPACING)
    assert metrics.nsd(distances, 2.0) == pytest.approx(wider, abs=0.03)


def test_mtre():
    a = np.zeros((2, 3))
    assert metrics.mtre(a, np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]])) == pytest.approx(3.0)


def test_pose_error():
    a = transforms.SE3.exp(jnp.array([1.0, 2.0, 3.0, 0.3, -0.2, 0.5]))
    b = transforms.perturb(a, jnp.array([0.0, 0.1, 0.0]), jnp.array([3.0, 0.0, 4.0]))
    translation, rotation = metrics.pose_error(a, b)
    assert translation == pytest.approx(5.0, abs=1e-5)
    assert rotation == pytest.approx(np.degrees(0.1), abs=1e-3)
    assert metrics.pose_error(a, a)[0] == 0.0


def test_reconstruction_metrics_of_a_perfect_and_a_shifted_mesh():
    truth = mesh_of(*ring_bone(0))
    perfect = metrics.reconstruction_metrics(truth, truth)
    assert perfect.keys() <= metrics.DEFINITIONS.keys()
    assert (perfect["dice"], perfect["nsd_1mm"]) == (1.0, 1.0)
    assert perfect["hd95_mm"] < 1e-4 and perfect["masd_mm"] < 1e-4
    vertices, faces = ring_bone(0)
    shifted = metrics.reconstruction_metrics(mesh_of(vertices + 2.0, faces), truth)
    assert 0.4 < shifted["dice"] < 0.9
    assert 1.0 < shifted["masd_mm"] < shifted["hd95_mm"] < np.sqrt(12.0) + 0.01


def test_dice_against_a_given_solid_counts_the_parts_outside_its_grid():
    vertices, faces = trimesh.creation.box((10, 10, 10)).vertices, trimesh.creation.box().faces
    solid = metrics.Solid(np.ones((10, 10, 10), bool), np.full(3, -4.5), 1.0)
    truth = mesh_of(vertices, faces)
    moved = mesh_of(vertices + np.array([5.0, 0.0, 0.0]), faces)
    assert metrics.reconstruction_metrics(truth, truth, solid)["dice"] == 1.0
    assert metrics.reconstruction_metrics(moved, truth, solid)["dice"] == pytest.approx(0.5)
    far = mesh_of(vertices + np.array([40.0, 30.0, -60.0]), faces)
    assert metrics.reconstruction_metrics(far, truth, solid)["dice"] == 0.0


@pytest.mark.parametrize("scale", [np.nan, 1e4])
def test_a_diverged_mesh_gives_nan(scale):
    vertices, faces = sphere(200, 10.0)
    found = metrics.reconstruction_metrics(
        mesh_of(vertices * scale, faces), mesh_of(vertices, faces)
    )
    assert all(np.isnan(value) for value in found.values())


def test_arrays_of_other_shapes_are_not_broadcast():
    with pytest.raises(DataError, match="different shapes"):
        metrics.dice(np.ones((4, 4, 4), bool), np.ones((4, 4, 1), bool))
    with pytest.raises(DataError, match="different shapes"):
        metrics.mtre(np.zeros((5, 3)), np.zeros((1, 3)))
    assert np.isnan(metrics.mtre(np.zeros((0, 3)), np.zeros((0, 3))))


def test_meshes_that_bound_no_solid():
    vertices, faces = sphere(500, 15.0)
    truth = mesh_of(vertices, faces)
    empty = mesh_of(np.zeros((0, 3)), np.zeros((0, 3), int))
    for mesh, reason in (
        (empty, "is empty"),
        (mesh_of(vertices, faces[:0]), "is empty"),
        (mesh_of(vertices + 300.0, faces[:, ::-1]), "is inside out"),
    ):
        with pytest.warns(UserWarning, match=reason):
            result = metrics.reconstruction_metrics(mesh, truth)
        assert all(np.isnan(value) for value in result.values())
        with pytest.raises(DataError, match=f"ground-truth mesh {reason}"):
            metrics.reconstruction_metrics(truth, mesh)
        with pytest.raises(DataError, match=reason):
            metrics.solid_of(mesh)
    with pytest.raises(DataError, match="without area"):
        metrics.surface_distances(empty, truth)
    with pytest.raises(DataError, match="empty"):
        metrics.distance_to_surface(np.zeros((2, 3)), empty)
