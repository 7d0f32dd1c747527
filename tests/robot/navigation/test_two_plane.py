"""Two-plane registration: rays and points from pixels of both views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.observations import NeedlePath
from dartjax.robot import (
    ClosureTooLarge,
    CorrespondenceFailed,
    DegenerateGeometry,
    StatusCode,
)
from dartjax.robot.carm import intrinsics, project_points
from dartjax.robot.navigation import (
    PartMatch,
    biplanar_target,
    locate_path,
    locate_point,
    marks_are_exchanged,
    path_frame,
    path_in_base,
    pixel_of_point,
    register_view,
    snap_to_epipolar,
    triangulate_rays,
    two_plane_ray,
)
from dartjax.transforms import SE3, SO3, apply
from tests.gradients import assert_gradient

ISO = 700.0
K = intrinsics(2480.0, jnp.array([384.0, 288.0]))
TILTS = ((0.02, -0.03, 0.05), (-0.04, 0.01, -0.03))
register = jax.jit(register_view, static_argnums=2)
locate = jax.jit(jax.vmap(locate_point, (0, None)))
pixel_at = jax.jit(pixel_of_point)
snap = jax.jit(snap_to_epipolar)
ray_of = jax.jit(two_plane_ray)
project = jax.jit(project_points)


def pose(target, part, tilt=(0.0, 0.0, 0.0)):
    """T_camera_biplanar of the part's view."""
    turn = SO3.from_rpy_radians(*tilt) @ SO3.from_matrix(target.R_biplanar_part[part].T)
    return SE3.from_rotation_and_translation(turn, jnp.array([2.0, -3.0, ISO]))


def pixels_of(points, target, part):
    """Pixels of points (n, 3) of the target's frame in one view."""
    return project(K, pose(target, part, TILTS[part]), points)


def view_of(target, part, noise=0.0, rng=None):
    points = target.points(part).reshape(-1, 3)
    pixels = np.asarray(pixels_of(points, target, part)).reshape(2, -1, 2)
    if rng is not None:
        pixels = pixels + noise * rng.standard_normal(pixels.shape)
    seen = jnp.ones(pixels.shape[:2], bool)
    match = PartMatch(jnp.asarray(pixels, target.uv.dtype), seen, jnp.zeros(()))
    view, status = register(match, target, part)
    assert status == StatusCode.OK
    return view


def both(target, noise=0.0, rng=None):
    views = [view_of(target, part, noise, rng) for part in (0, 1)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *views)


def one(views, part):
    return jax.tree.map(lambda leaf: leaf[part], views)


@pytest.fixture(scope="module")
def target():
    return biplanar_target()


@pytest.fixture(scope="module")
def views(target):
    return both(target)


def points_within(rng, count, size=25.0):
    return jnp.asarray(rng.uniform(-size, size, (count, 3)), jnp.float32)


def marks_of(points, target):
    return jnp.stack([pixels_of(points, target, part) for part in (0, 1)], axis=1)


def test_points_are_recovered(target, views):
    points = points_within(np.random.default_rng(0), 200)
    located, status = locate(marks_of(points, target), views)
    assert np.all(status == StatusCode.OK)
    np.testing.assert_allclose(located.point, points, atol=5e-3)
    assert float(jnp.max(located.gap)) < 5e-3


def test_rays_run_from_the_source_through_the_point(target, views):
    for part in (0, 1):
        source = np.asarray(pose(target, part, TILTS[part]).inverse().translation())
        point = np.array([5.0, -10.0, 15.0])
        pixel = pixels_of(jnp.asarray(point[None], jnp.float32), target, part)[0]
        on_ray, direction = ray_of(pixel, one(views, part))
        expected = (point - source) / np.linalg.norm(point - source)
        np.testing.assert_allclose(direction, expected, atol=2e-5)
        off = np.cross(np.asarray(on_ray) - point, expected)
        assert np.linalg.norm(off) < 5e-3


def test_right_in_the_ap_view_is_plus_x(target, views):
    """AP: u is +x, v is +y; lateral: u is -z, v is +y."""
    for part, axis, sign in ((0, 0, 1.0), (1, 2, -1.0)):
        center = pixel_at(jnp.zeros(3), one(views, part))
        moved = pixel_at(jnp.zeros(3).at[axis].set(10.0 * sign), one(views, part))
        lower = pixel_at(jnp.array([0.0, 10.0, 0.0]), one(views, part))
        assert float(moved[0] - center[0]) > 30.0 and float(lower[1] - center[1]) > 30.0


def test_pixel_of_a_point_is_its_projection(target, views):
    points = points_within(np.random.default_rng(1), 20)
    for part in (0, 1):
        back = jnp.stack([pixel_at(point, one(views, part)) for point in points])
        np.testing.assert_allclose(back, pixels_of(points, target, part), atol=0.02)


def test_a_mark_snaps_to_its_epipolar_line(target, views):
    point = jnp.array([[5.0, -10.0, 15.0]])
    ap, lateral = (pixels_of(point, target, part)[0] for part in (0, 1))
    for push in ((8.0, 0.0), (0.0, 6.0)):
        snapped = snap(lateral + jnp.array(push), one(views, 1), ap, one(views, 0))
        point_gap = locate(jnp.stack([ap, snapped])[None], views)[0].gap[0]
        assert float(point_gap) < 0.01
    np.testing.assert_allclose(snap(lateral, one(views, 1), ap, one(views, 0)), lateral, atol=0.03)


@pytest.mark.slow
def test_errors_of_located_points(target):
    """0.1 px on balls and marks gives 0.05 mm on average; the error grows in proportion. (With
    all 210 balls a layer it would be 0.043 mm.)"""
    for noise, expected in ((0.1, 0.050), (0.25, 0.125)):
        rng, errors = np.random.default_rng(2), []
        for _ in range(4):
            points = points_within(rng, 100)
            marks = np.asarray(marks_of(points, target))
            marks = marks + noise * rng.standard_normal(marks.shape)
            located, _ = locate(jnp.asarray(marks, jnp.float32), both(target, noise, rng))
            errors.append(np.linalg.norm(located.point - points, axis=1))
        assert np.mean(errors) == pytest.approx(expected, rel=0.15)


def test_the_covariance_is_that_of_repeated_trials(target):
    rng, noise = np.random.default_rng(3), 0.3
    point = jnp.array([[12.0, -20.0, 8.0]])
    propagate = jax.jit(lambda m, v: locate_point(m, v, mark_sigma_px=noise)[0])
    found, predicted = [], []
    for _ in range(200):
        views = both(target, noise, rng)
        marks = np.asarray(marks_of(point, target))[0] + noise * rng.standard_normal((2, 2))
        located = propagate(jnp.asarray(marks, jnp.float32), views)
        found.append(np.asarray(located.point))
        predicted.append(np.asarray(located.covariance))
    spread = np.sqrt(np.diag(np.cov(np.array(found).T)))
    np.testing.assert_allclose(spread, np.sqrt(np.diag(np.mean(predicted, axis=0))), rtol=0.15)


def test_skew_rays_have_a_gap():
    points = jnp.array([[-5.0, 0.0, 1.0], [0.0, -5.0, -1.0]])
    directions = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    X, gap = triangulate_rays(points, directions)
    np.testing.assert_allclose(X, 0.0, atol=1e-6)
    assert float(gap) == pytest.approx(2.0)


def test_invalid_marks_are_rejected(target, views):
    marks = np.array(marks_of(jnp.zeros((1, 3)), target)[0])
    cases = {
        StatusCode.CLOSURE_TOO_LARGE: marks + np.array([[0.0, 0.0], [0.0, 12.0]]),
        StatusCode.DETECTION_FAILED: marks * [[1.0, np.nan], [1.0, 1.0]],
    }
    for code, bad in cases.items():
        assert int(locate(jnp.asarray(bad, jnp.float32)[None], views)[1][0]) == code
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0]]), views)
    same = jnp.asarray(np.stack([marks[0], marks[0]]), jnp.float32)
    assert int(locate(same[None], twice)[1][0]) == StatusCode.DEGENERATE_GEOMETRY
    with pytest.raises(DegenerateGeometry, match="20 degrees"):
        locate_path(same, same, twice)
    with pytest.raises(ClosureTooLarge, match="entry"):
        locate_path(jnp.asarray(cases[StatusCode.CLOSURE_TOO_LARGE], jnp.float32), same, views)


def test_too_few_balls(target):
    seen = jnp.zeros((2, 60), bool).at[:, :3].set(True)
    match = PartMatch(target.uv[0] * 3.0 + 300.0, seen, jnp.zeros(()))
    assert int(register(match, target, 0)[1]) == StatusCode.TOO_FEW_FIDUCIALS


def test_gradient_of_a_point_in_its_marks(target, views, x64):
    target, views = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (target, views))
    marks = jnp.stack(
        [pixels_of(jnp.array([[4.0, 5.0, -6.0]]), target, part)[0] for part in (0, 1)]
    )
    weight = jnp.array([0.3, -0.7, 0.5])
    assert_gradient(lambda m: locate_point(m, views)[0].point @ weight, marks + 0.1, rtol=1e-5)


def test_the_path_in_the_base_and_its_frame(target, views):
    ends = jnp.array([[3.0, 4.0, -20.0], [-2.0, 6.0, 15.0]])
    marks = marks_of(ends, target)
    path, located = locate_path(marks[0], marks[1], views, mark_sigma_px=0.5)
    np.testing.assert_allclose(path.entry_point, ends[0], atol=5e-3)
    assert np.all(np.linalg.eigvalsh(located.covariance) > 0.0)
    T = SE3.from_rotation_and_translation(SO3.from_x_radians(3.0), jnp.array([600.0, 450.0, -90.0]))
    T2 = SE3.from_rotation_and_translation(SO3.from_z_radians(0.2), jnp.array([1.0, 2.0, 3.0]))
    moved = path_in_base(NeedlePath(ends[0], ends[1], path.radius), T, T2)
    expected = apply(T, apply(T2, ends))
    np.testing.assert_allclose(
        jnp.stack([moved.entry_point, moved.target_point]), expected, atol=1e-3
    )
    frame = path_frame(moved.entry_point, moved.target_point)
    tip = frame.apply(jnp.array([0.0, 0.0, -1.0]) * moved.length)
    np.testing.assert_allclose(tip, moved.target_point, atol=1e-3)


def test_the_length_of_a_direction_does_not_matter():
    points = jnp.array([[-5.0, 0.0, 1.0], [0.0, -5.0, -1.0]])
    directions = jnp.array([[3.0, 0.0, 0.0], [0.0, 0.2, 0.0]])
    X, gap = triangulate_rays(points, directions)
    np.testing.assert_allclose(X, 0.0, atol=1e-6)
    assert float(gap) == pytest.approx(2.0)
    X, gap = triangulate_rays(points, directions.at[1].set(0.0))
    assert np.isnan(X).all() and np.isnan(gap)


def test_balls_that_were_not_seen_may_be_nan(target):
    points = target.points(0).reshape(-1, 3)
    pixels = pixels_of(points, target, 0).reshape(2, -1, 2)
    seen = jnp.arange(60)[None] % jnp.array([[5], [7]]) > 0
    views = [
        register(
            PartMatch(jnp.where(seen[..., None], pixels, lost), seen, jnp.zeros(())), target, 0
        )
        for lost in (0.0, jnp.nan)
    ]
    assert int(views[1][1]) == StatusCode.OK
    for a, b in zip(*(jax.tree.leaves(view) for view, _ in views), strict=True):
        np.testing.assert_array_equal(a, b)


def test_balls_of_another_part_do_not_register(target):
    pixels = pixels_of(target.points(1).reshape(-1, 3), target, 1).reshape(2, -1, 2)
    match = PartMatch(pixels, jnp.ones((2, 60), bool), jnp.zeros(()))
    assert int(register(match, target, 0)[1]) == StatusCode.CORRESPONDENCE_FAILED


def test_marks_exchanged_between_the_views(target, views):
    """One point near the middle fits either way; points at different heights do not."""
    judge = jax.jit(marks_are_exchanged)
    middle = marks_of(jnp.array([[10.0, 0.0, 10.0]]), target)
    assert float(locate(middle[:, ::-1], views)[0].gap[0]) < 0.5
    assert not bool(judge(middle[:, ::-1], views)[0])
    apart = marks_of(jnp.array([[20.0, 25.0, -20.0], [-20.0, -25.0, 15.0]]), target)
    exchanged, gaps = judge(apart, views)
    assert not bool(exchanged) and float(gaps[0]) < 0.01
    exchanged, gaps = judge(apart[:, ::-1], views)
    assert bool(exchanged) and float(gaps[0]) > 1.0
    with pytest.raises(CorrespondenceFailed, match="order of the views"):
        locate_path(*apart[:, ::-1], views)
    assert locate_path(*apart, views)[0].entry_point.shape == (3,)
