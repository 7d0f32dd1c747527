"""Balls, drill guide and nail in rendered images: accuracy, and errors for missing ones."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import robot
from dartjax.robot import StatusCode, carm, distal
from dartjax.transforms import SE3, SO3

GUIDE, NAIL = carm.drill_guide(), carm.locking_nail()
K = carm.intrinsics(2480.0, jnp.array([384.0, 288.0]))
VIEW = carm.CarmView(K, carm.flat_panel(), SO3.identity())
detect = jax.jit(carm.detect_balls)
match = jax.jit(distal.match_guide)


def looking_down(turn, tilt_x, tilt_y, place):
    rotation = SO3.from_x_radians(tilt_x) @ SO3.from_y_radians(tilt_y)
    rotation = rotation @ SO3.from_z_radians(turn) @ SO3.from_x_radians(np.pi)
    return SE3.from_rotation_and_translation(rotation, jnp.asarray(place, jnp.float32))


T_GUIDE = looking_down(0.5, 0.08, -0.1, (0.0, -8.0, 600.0))
T_NAIL = looking_down(0.55, 0.06, 0.07, (8.0, 6.0, 640.0))


def anatomy():
    """Soft tissue with ribs and a bright lung, from smooth noise."""
    rng = np.random.default_rng(0)
    coarse = jnp.asarray(rng.normal(0.0, 0.35, (9, 12)), jnp.float32)
    smooth = jax.image.resize(coarse, (576, 768), "cubic")
    ribs = 0.3 * jnp.sin(jnp.arange(576) / 25.0)[:, None]
    return 3.0 + smooth + ribs


@functools.cache
def picture(guide=True, nail=True, seed=0):
    rays = carm.image_rays(VIEW)
    metal = jnp.zeros(rays.shape[:2])
    if guide:
        metal = metal + carm.guide_attenuation(rays, VIEW, GUIDE, T_GUIDE)
    if nail:
        metal = metal + carm.nail_attenuation(rays, NAIL, T_NAIL)
    return carm.record_image(anatomy(), metal, key=jax.random.key(seed))


def true_centers(T=T_GUIDE):
    return np.asarray(carm.project_points(K, T, GUIDE.balls))


def found_of(centers, radius=6.1, capacity=64):
    """`Balls` as the detector would return them."""
    padded = np.zeros((capacity, 2), np.float32)
    padded[: len(centers)] = centers
    valid = jnp.arange(capacity) < len(centers)
    fill = jnp.full(capacity, radius)
    return carm.Balls(jnp.asarray(padded), fill, jnp.ones(capacity), valid)


@pytest.mark.slow
def test_every_ball_is_found_to_a_tenth_of_a_pixel():
    found = detect(picture(nail=False))
    centers = np.asarray(found.centers)[np.asarray(found.valid)]
    distance = np.linalg.norm(true_centers()[:, None] - centers[None], axis=-1)
    assert (distance.min(axis=1) < 1.0).all()
    assert len(centers) == 28
    off = true_centers() - centers[distance.argmin(axis=1)]
    assert np.sqrt(np.mean(off**2, axis=0)).max() < 0.10
    assert np.asarray(found.radius)[:28].mean() == pytest.approx(1.5 * 2480 / 590, rel=0.03)


def test_hough_circles_of_opencv_finds_no_more():
    cv2 = pytest.importorskip("cv2")
    image = np.asarray(picture(nail=False)).astype(np.uint8)
    circles = cv2.HoughCircles(image, cv2.HOUGH_GRADIENT, 1.0, 12, None, 60, 8, 4, 9)
    theirs = np.zeros((0, 2)) if circles is None else circles[0, :, :2] + 0.5
    near = np.linalg.norm(true_centers()[:, None] - theirs[None], axis=-1).min(axis=1)
    assert (near < 1.5).sum() >= 14  # both detectors find the same balls


@pytest.mark.slow
def test_balls_are_matched_with_hidden_and_stray_balls():
    rng = np.random.default_rng(0)
    for trial in range(6):
        T = looking_down(rng.uniform(-3, 3), *rng.uniform(-0.2, 0.2, 2), (5.0, -4.0, 615.0))
        kept = rng.permutation(28)[:18]
        stray = rng.uniform((100, 80), (660, 500), (8, 2))
        centers = true_centers(T)[kept] + rng.normal(0, 0.08, (18, 2))
        centers = rng.permutation(np.concatenate([centers, stray]))
        result, status = match(found_of(centers, 1.5 * 2480 / 608), GUIDE, K)
        assert int(status) == StatusCode.OK, trial
        assert int(jnp.sum(result.seen)) >= 18
        off = T.inverse() @ result.pose.T_camera_object
        assert float(jnp.linalg.norm(off.translation())) < 2.0
        assert float(jnp.linalg.norm(off.rotation().log())) < 0.01


def test_a_mirrored_a_foreign_and_an_empty_set_are_rejected():
    mirrored = true_centers() * [-1, 1] + [768, 0]
    assert int(match(found_of(mirrored), GUIDE, K)[1]) in (
        StatusCode.TOO_FEW_FIDUCIALS,
        StatusCode.CORRESPONDENCE_FAILED,
    )
    lattice = np.stack(np.meshgrid(np.arange(7), np.arange(5)), axis=-1).reshape(-1, 2)
    foreign = 300.0 + 33.0 * lattice
    assert int(match(found_of(foreign), GUIDE, K)[1]) != StatusCode.OK
    for few in (true_centers()[:0], true_centers()[::3]):
        assert int(match(found_of(few), GUIDE, K)[1]) == StatusCode.TOO_FEW_FIDUCIALS


def nail_edges(T, count=64):
    """Edge points of the nail from its rims and its silhouette, computed independently of the
    estimator's: points of the rims on the nail's cylinder, projected, and of the two discs the
    part that is inside both."""
    radius = 6.0 - 1.0  # the visible rims lie a beam's mean depth under the surface
    holes = []
    angle = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    for x in (0.0, -30.0):
        center = np.asarray(carm.project_points(K, T, jnp.array([[x, 0.0, 0.0]])))[0]
        reach = []
        for side in (1.0, -1.0):
            y = 2.5 * np.sin(angle)
            rim = np.column_stack([x + 2.5 * np.cos(angle), y, side * np.sqrt(radius**2 - y**2)])
            off = np.asarray(carm.project_points(K, T, jnp.asarray(rim, jnp.float32))) - center
            turn = np.arctan2(off[:, 1], off[:, 0])
            order = np.argsort(turn)
            rays = 2 * np.pi * np.arange(count) / count - np.pi
            far = np.hypot(*off.T)[order]
            reach.append(np.interp(rays, turn[order], far, period=2 * np.pi))
        nearer = np.minimum(*reach) - 0.5 * 1.1**2 / 10.0  # blur shrinks a bright disc
        holes.append(center + nearer[:, None] * np.column_stack([np.cos(rays), np.sin(rays)]))
    return jnp.asarray(np.stack(holes), jnp.float32)


@pytest.mark.slow  # the fit takes long to compile
def test_edges_of_the_rims_have_no_residual_and_give_the_pose():
    hole = nail_edges(T_NAIL)
    none = jnp.zeros((2, 64, 2))
    edges = distal.EdgePoints(hole, jnp.ones((2, 64), bool), none, jnp.zeros((2, 64), bool))
    residual = distal.nail_residual(T_NAIL, edges, K, NAIL)
    assert float(jnp.max(jnp.abs(residual))) < 0.05
    middles = carm.project_points(K, T_NAIL, NAIL.hole_centers)
    x_axis = T_NAIL.rotation().as_matrix()[:2, 0]
    start = distal.fronto_parallel_pose(middles, x_axis, K, NAIL)
    fit, _ = jax.jit(distal.through_hole_pose)(edges, start, K, NAIL)
    off = T_NAIL.inverse() @ fit.T_camera_nail
    axis = np.asarray(off.rotation().as_matrix())[:, 2]
    assert np.degrees(np.arccos(min(axis[2], 1.0))) < 0.15


@pytest.fixture(scope="module")
def lattice():
    i, j = np.meshgrid(np.arange(-8, 9), np.arange(-10, 11), indexing="ij")
    nodes = jnp.asarray(np.stack([384 + 38.0 * j, 288 + 38.0 * i], axis=-1), jnp.float32)
    return carm.fit_local(nodes, jnp.ones(i.shape, bool))[0]


@pytest.mark.slow  # compiles the whole of `locate_guide_and_nail`
def test_guide_and_nail_are_located(lattice):
    seen = distal.locate_guide_and_nail(picture(), lattice, K, GUIDE, NAIL)
    guide, nail = distal.check_guide(seen), distal.check_nail(seen)
    off = T_GUIDE.inverse() @ guide.pose.T_camera_object
    assert float(jnp.linalg.norm(off.translation())) < 0.5
    assert np.degrees(float(jnp.linalg.norm(off.rotation().log()))) < 0.15
    off = np.asarray((T_NAIL.inverse() @ nail.T_camera_nail).as_matrix())
    assert np.hypot(*off[:2, 3]) < 0.2
    assert np.degrees(np.arcsin(np.hypot(*off[:2, 2]))) < 0.6


@pytest.mark.slow
def test_bad_images_raise_errors_and_give_no_pose(lattice):
    cases = {
        "no target": (picture(guide=False), robot.TooFewFiducials),
        "saturated": (jnp.full((576, 768), 255.0), robot.DetectionFailed),
        "black": (jnp.zeros((576, 768)), robot.DetectionFailed),
    }
    for name, (image, error) in cases.items():
        seen = distal.locate_guide_and_nail(image, lattice, K, GUIDE, NAIL)
        with pytest.raises(error):
            distal.check_guide(seen)
        if name != "no target":
            with pytest.raises(error):
                distal.check_nail(seen)
    with pytest.raises(robot.NavigationError):
        distal.check_nail(
            distal.locate_guide_and_nail(picture(nail=False), lattice, K, GUIDE, NAIL)
        )


@pytest.mark.slow
def test_half_of_the_balls_and_a_second_target(lattice):
    half = dataclasses.replace(
        GUIDE, balls=jnp.where(jnp.arange(28)[:, None] < 11, GUIDE.balls, 1e3)
    )
    rays = carm.image_rays(VIEW)
    metal = carm.guide_attenuation(rays, VIEW, half, T_GUIDE)
    image = carm.record_image(anatomy(), metal, key=jax.random.key(1))
    with pytest.raises(robot.TooFewFiducials):
        distal.check_guide(distal.locate_guide_and_nail(image, lattice, K, GUIDE, NAIL))
    other = looking_down(0.2, 0.0, 0.0, (50.0, 40.0, 600.0))
    metal = sum(carm.guide_attenuation(rays, VIEW, GUIDE, T) for T in (T_GUIDE, other))
    image = carm.record_image(anatomy(), metal, key=jax.random.key(2))
    with pytest.raises(robot.CorrespondenceFailed):
        distal.check_guide(distal.locate_guide_and_nail(image, lattice, K, GUIDE, NAIL))
