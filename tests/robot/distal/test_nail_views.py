"""Ellipses, poses of circles, tangents, and the published estimators of the nail's pose."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import StatusCode, carm, distal
from dartjax.robot.carm import Ellipse
from dartjax.transforms import SE3, SO3

K = np.array([[2480.0, 0.0, 384.0], [0.0, 2480.0, 288.0], [0.0, 0.0, 1.0]])
NAIL = carm.locking_nail()
ANGLES = np.linspace(0.0, 2 * np.pi, 64, endpoint=False)
fit_hull = jax.jit(carm.hull_ellipse)


def nail_pose(tilt_x=0.1, tilt_y=-0.15, turn=0.7):
    rotation = SO3.from_x_radians(tilt_x) @ SO3.from_y_radians(tilt_y)
    rotation = rotation @ SO3.from_z_radians(turn) @ SO3.from_x_radians(np.pi)
    return SE3.from_rotation_and_translation(rotation, jnp.array([10.0, -6.0, 620.0]))


def flat_circles(T):
    """Pixels of both holes as flat circles."""
    for x in (0.0, -30.0):
        circle = np.column_stack([x + 2.5 * np.cos(ANGLES), 2.5 * np.sin(ANGLES), 0.0 * ANGLES])
        yield carm.project_points(jnp.asarray(K), T, jnp.asarray(circle))


def ellipses(T):
    return [fit_hull(points, jnp.ones(64, bool))[0] for points in flat_circles(T)]


@pytest.mark.slow
def test_the_hull_excludes_inner_points(x64):
    points = np.column_stack([100 + 12 * np.cos(ANGLES), 80 + 8 * np.sin(ANGLES)])
    points[::6] = 0.6 * (points[::6] - [100, 80]) + [100, 80]
    found, status = fit_hull(jnp.asarray(points), jnp.ones(64, bool))
    assert int(status) == StatusCode.OK
    np.testing.assert_allclose(found.center, [100.0, 80.0], atol=1e-6)
    np.testing.assert_allclose(found.semi_axes, [8.0, 12.0], atol=1e-6)
    np.testing.assert_allclose(found.aspect, 8.0 / 12.0, atol=1e-6)
    # Only RANSAC handles outliers outside the ellipse.
    points[::6] = 1.5 * (points[::6] - [100, 80]) / 0.6 + [100, 80]
    found, _ = carm.consensus_ellipse(jnp.asarray(points), jnp.ones(64, bool))
    np.testing.assert_allclose(found.semi_axes, [8.0, 12.0], atol=1e-3)


def test_few_points_and_slim_ellipses_have_a_status():
    points = jnp.asarray(np.column_stack([30 * np.cos(ANGLES), 5 * np.sin(ANGLES)]))
    assert int(fit_hull(points, jnp.ones(64, bool))[1]) == StatusCode.DETECTION_FAILED
    assert int(fit_hull(points, jnp.arange(64) < 6)[1]) == StatusCode.DETECTION_FAILED


@pytest.mark.slow
def test_ellipse_fit_is_that_of_scikit_image(x64):
    measure = pytest.importorskip("skimage.measure")
    noise = 0.2 * np.random.default_rng(0).normal(size=(64, 2))
    points = np.column_stack([100 + 12 * np.cos(ANGLES), 80 + 8 * np.sin(ANGLES)]) + noise
    ours = carm.fit_ellipse(jnp.asarray(points), jnp.ones(64))
    theirs = measure.EllipseModel.from_estimate(points)
    np.testing.assert_allclose(ours.center, theirs.center, atol=0.02)
    np.testing.assert_allclose(ours.semi_axes, np.sort(theirs.axis_lengths), atol=0.04)


def test_poses_of_circles_from_two_ellipses(x64):
    T = nail_pose()
    normal, centers, pixels = distal.hole_plane(*ellipses(T), jnp.asarray(K), NAIL)
    np.testing.assert_allclose(normal, -np.asarray(T.rotation().as_matrix())[:, 2], atol=1e-8)
    np.testing.assert_allclose(centers[0], T.translation(), atol=1e-5)
    expected = carm.project_points(jnp.asarray(K), T, NAIL.hole_centers)
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_tangents_touch_both_ellipses(x64):
    rng = np.random.default_rng(0)

    def ellipse(center):
        root = np.eye(2) * rng.uniform(5, 12, 2) + rng.normal(0, 1, (2, 2))
        return Ellipse(jnp.asarray(center), jnp.asarray(root @ root.T))

    for _ in range(5):
        pair = ellipse(rng.normal(0, 3, 2)), ellipse(rng.normal((60, 20), 3))
        contacts = carm.bitangents(*pair)
        for a, b in zip(*map(np.asarray, contacts), strict=True):
            normal = np.array([-(b - a)[1], (b - a)[0]])
            for e in pair:
                reach = np.sqrt(normal @ np.asarray(e.shape) @ normal)
                offset = abs(normal @ (np.asarray(e.center) - a))
                np.testing.assert_allclose(offset, reach, rtol=1e-9)
        assert len(np.unique(np.round(np.asarray(contacts[0]), 6), axis=0)) == 4
    overlapping = carm.bitangents(pair[0], pair[0])
    assert not np.isfinite(np.asarray(overlapping[0])).all()


@pytest.mark.slow
def test_generic_view_of_flat_circles_is_exact(x64):
    T = nail_pose()
    found, rms, status = distal.generic_view(*ellipses(T), jnp.asarray(K), NAIL)
    assert int(status) == StatusCode.OK
    assert float(rms) < 1e-6
    np.testing.assert_allclose(found.as_matrix(), T.as_matrix(), atol=1e-6)


def test_fronto_parallel_view_in_closed_form(x64):
    # Straight through: along the ray to the middle of the holes.
    straight = nail_pose(0.0, 0.0)
    middle = straight.apply(jnp.array([-15.0, 0.0, 0.0]))
    slope = middle[:2] / middle[2]
    onto_ray = SO3.exp(jnp.array([-slope[1], slope[0], 0.0]))
    T = SE3.from_rotation_and_translation(onto_ray @ straight.rotation(), straight.translation())
    assert distal.tilt_deg(T) < 0.02
    x_axis = T.rotation().as_matrix()[:2, 0]
    found, status = distal.fronto_parallel_view(*ellipses(T), x_axis, jnp.asarray(K), NAIL)
    assert int(status) == StatusCode.OK
    matrix, true = np.asarray(found.as_matrix()), np.asarray(T.as_matrix())
    np.testing.assert_allclose(matrix[:3, :3], true[:3, :3], atol=2e-3)
    np.testing.assert_allclose(matrix[:3, 3], true[:3, 3], atol=1.0)
    assert np.linalg.det(np.asarray(found.rotation().as_matrix())) > 0.99
    # The drill guide's x axis determines the order of the holes.
    swapped, _ = distal.fronto_parallel_view(*ellipses(T)[::-1], x_axis, jnp.asarray(K), NAIL)
    np.testing.assert_allclose(swapped.as_matrix(), found.as_matrix(), atol=1e-6)
    _, status = distal.fronto_parallel_view(
        *ellipses(nail_pose(0.3, 0.0)), x_axis, jnp.asarray(K), NAIL
    )
    assert int(status) == StatusCode.NOT_FRONTO_PARALLEL


@pytest.mark.parametrize("aside", [1e-9, -1e-9, 0.1, -0.1])
def test_an_axis_across_the_holes_does_not_name_the_first(aside):
    holes = jnp.array([[300.0, 288.0], [420.0, 288.0]])
    x_axis = jnp.array([aside, 1.0])
    pose = distal.fronto_parallel_pose(holes, x_axis, jnp.asarray(K), NAIL)
    assert np.isnan(pose.as_matrix()[:3]).any()
    swap, status = distal.first_hole(holes, x_axis)
    assert int(status) == StatusCode.DEGENERATE_GEOMETRY and not bool(swap)
    round_holes = [Ellipse(hole, 100.0 * jnp.eye(2)) for hole in holes]
    _, status = distal.fronto_parallel_view(*round_holes, x_axis, jnp.asarray(K), NAIL)
    assert int(status) == StatusCode.DEGENERATE_GEOMETRY


def test_the_first_hole_is_further_along_the_axis():
    holes = jnp.array([[300.0, 288.0], [420.0, 300.0]])
    for sign in (1.0, -1.0):
        x_axis = sign * jnp.array([1.0, 1.0])
        swap, status = distal.first_hole(holes, x_axis)
        assert int(status) == StatusCode.OK and bool(swap) == (sign > 0.0)
        pose = distal.fronto_parallel_pose(holes, x_axis, jnp.asarray(K), NAIL)
        first = carm.project_points(jnp.asarray(K), pose, jnp.zeros((1, 3)))[0]
        np.testing.assert_allclose(first, holes[int(sign > 0.0)], atol=1e-2)
    for bad in (jnp.zeros(2), jnp.array([jnp.nan, 1.0])):
        assert int(distal.first_hole(holes, bad)[1]) == StatusCode.DEGENERATE_GEOMETRY


def test_an_ellipse_of_unknown_shape_is_not_fronto_parallel():
    pair = [Ellipse(jnp.array([x, 288.0]), 100.0 * jnp.eye(2)) for x in (420.0, 300.0)]
    pair[1] = Ellipse(pair[1].center, jnp.full((2, 2), jnp.nan))
    x_axis = jnp.array([1.0, 0.0])
    _, status = distal.fronto_parallel_view(*pair, x_axis, jnp.asarray(K), NAIL)
    assert int(status) == StatusCode.NOT_FRONTO_PARALLEL
    _, angle = distal.circle_guidance(jnp.array([0.0, 0.0, 1.0]), jnp.array([0.9, jnp.nan]))
    assert float(angle) == 0.0
    assert np.isnan(distal.circle_guidance(jnp.ones(3), jnp.array([0.9, jnp.nan]))[0])


def test_edges_that_are_not_valid_may_be_nan():
    T, camera = nail_pose(), jnp.asarray(K)
    rims = jnp.array([[2.5, 0.0, 0.0], [0.0, 2.5, 0.0], [-2.5, 0.0, 0.0]])
    points = NAIL.hole_centers[:, None] + rims[None]
    ring = carm.project_points(camera, T, points.reshape(-1, 3)).reshape(2, 3, 2)
    valid = jnp.array([[True, True, False]] * 2)

    def with_lost(value):
        hole = jnp.where(valid[..., None], ring, value)
        return distal.EdgePoints(hole, valid, jnp.full((2, 1, 2), value), jnp.zeros((2, 1), bool))

    @jax.jit
    def residual_and_gradient(edges):
        def of_hole(hole):
            moved = dataclasses.replace(edges, hole=hole)
            return distal.nail_residual(T, moved, camera, NAIL)

        residual, back = jax.vjp(of_hole, edges.hole)
        return residual, back(jnp.ones_like(residual))[0]

    known, lost = with_lost(300.0), with_lost(jnp.nan)
    expected, found = (residual_and_gradient(edges) for edges in (known, lost))
    np.testing.assert_array_equal(found[0], expected[0])
    assert np.isfinite(found[1]).all()
    ball = ring[0, :1] + 1.0
    clear = [distal.unblocked(edges, ball, 3.0).hole_valid for edges in (known, lost)]
    np.testing.assert_array_equal(*clear)
    assert not bool(clear[0][0, 0]) and bool(clear[0][1, 0])
