"""Detections that are not valid may be NaN, infinite or huge: the estimators of the robots ignore
them. The searches over correspondences are not differentiable, so only their results are compared.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import carm, distal, navigation
from dartjax.transforms import SE3, SO3, apply
from tests.properties.masked import assert_ignored

K = carm.intrinsics(2480.0, jnp.array([384.0, 288.0]))
GUIDE, NAIL, TARGET = carm.drill_guide(), carm.locking_nail(), navigation.biplanar_target()
DOWN = SO3.from_rpy_radians(0.1, 0.2, 0.3) @ SO3.from_x_radians(jnp.pi)
POSE = SE3.from_rotation_and_translation(DOWN, jnp.array([3.0, 5.0, 620.0]))
RNG = np.random.default_rng(0)


def noise(*shape, scale=0.1):
    return jnp.asarray(scale * RNG.normal(size=shape), jnp.float32)


def hidden(*index, shape):
    return jnp.zeros(shape, bool).at[index].set(True)


@pytest.fixture(scope="module")
def balls():
    """Pixels of the drill guide's balls, their positions, and which were not detected."""
    pixels = carm.project_points(K, POSE, GUIDE.balls) + noise(28, 2)
    return pixels, GUIDE.balls, hidden(jnp.array([3, 10]), shape=(28,))


def rays(pixels, points, valid):
    """Image of the balls under a fitted projection: its matrix alone has no scale."""
    P = carm.projection_dlt(points, pixels, valid)
    seen = jnp.concatenate([GUIDE.balls, jnp.ones((28, 1))], axis=1) @ P.T
    return seen[:, :2] / seen[:, 2:] / 100.0


def linear_pose(pixels, points, valid):
    return carm.pnp_dlt(pixels, points, valid, K).as_matrix()


def refined_pose(pixels, points, valid):
    fit, status = carm.pnp_lm(pixels, points, valid.astype(pixels.dtype), K, POSE)
    return fit.T_camera_object.as_matrix(), fit.rms_px, status


def evolved_pose(pixels, points, valid):
    spread, weight = jnp.array([2.0, 2.0, 10.0, 0.02, 0.02, 0.02]), valid.astype(pixels.dtype)
    return carm.pnp_evolution(
        pixels, points, weight, K, POSE, spread, key=jax.random.key(0), num_generations=10
    ).as_matrix()


@pytest.mark.parametrize(
    ("estimator", "gradient"),
    [
        (rays, False),
        pytest.param(linear_pose, True, marks=pytest.mark.slow),
        pytest.param(refined_pose, True, marks=pytest.mark.slow),
        pytest.param(evolved_pose, False, marks=pytest.mark.slow),
    ],
)
def test_points_of_a_projection_or_pose(balls, estimator, gradient):
    pixels, points, ignored = balls
    found = functools.partial(estimator, valid=~ignored)
    arguments = {"pixels": pixels, "points": points}
    ignored = dict.fromkeys(arguments, ignored)
    assert_ignored(found, arguments, ignored, gradient=gradient, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def nodes():
    """Nodes of a plate by an intensifier, rows x columns x 2, with four that were not detected."""
    steps = 25.0 * (np.arange(13) - 6)
    ideal = np.stack(np.meshgrid(384.0 + steps, 288.0 + steps), axis=-1).reshape(-1, 2)
    real = carm.distort_points(carm.intensifier(), SO3.identity(), jnp.asarray(ideal, jnp.float32))
    lost = hidden(jnp.array([2, 3, 12, 5]), jnp.array([7, 7, 0, 5]), shape=(13, 13))
    return real.reshape(13, 13, 2), jnp.asarray(ideal, jnp.float32), lost


def test_nodes_of_a_global_distortion(nodes):
    real, ideal, lost = nodes
    ignored, points = lost.reshape(-1), jnp.array([[300.0, 250.0], [420.0, 330.0]])

    def corrected(real, ideal):
        fit = carm.fit_global(real, ideal, ~ignored, 3)
        return carm.ideal_of_real_global(fit, points) / 100.0

    arguments = {"real": real.reshape(-1, 2), "ideal": ideal}
    # The gradient goes through a least-squares solver whose own derivative JAX defines.
    assert_ignored(corrected, arguments, dict.fromkeys(arguments, ignored), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_nodes_of_a_local_distortion(nodes):
    real, _, lost = nodes
    points = jnp.array([[300.0, 250.0], [420.0, 330.0]])

    def corrected(real):
        lattice, status = carm.fit_local(real, ~lost)
        return carm.ideal_of_real(lattice, points) / 100.0, status

    assert_ignored(corrected, {"real": real}, {"real": lost}, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_balls_of_a_drill_guide(balls):
    pixels, _, ignored = balls
    centers = jnp.concatenate([pixels, jnp.full((4, 2), 200.0)])
    ignored = jnp.concatenate([ignored, jnp.ones(4, bool)])
    radius = jnp.full(32, GUIDE.radius * 2480.0 / 620.0)

    def matched(centers, radius, support):
        balls = carm.Balls(centers, radius, support, ~ignored)
        match, status = distal.match_guide(balls, GUIDE, K)
        # The cost of the second best minimum is infinite where there is none.
        pixels = jnp.where(match.seen[:, None], match.pixels, 0.0)
        return match.pose.T_camera_object, match.pose.rms_px, pixels, match.seen, status

    arguments = {"centers": centers, "radius": radius, "support": jnp.ones(32)}
    assert_ignored(
        matched, arguments, dict.fromkeys(arguments, ignored), gradient=False, rtol=1e-3, atol=1e-2
    )


@pytest.fixture(scope="module")
def part():
    """Pixels of the target's first part (layer, ball, 2), and which balls were not detected."""
    pose = SE3.from_rotation_and_translation(
        SO3.from_rpy_radians(0.02, -0.03, 0.05) @ SO3.from_matrix(TARGET.R_biplanar_part[0].T),
        jnp.array([2.0, -3.0, 700.0]),
    )
    pixels = carm.project_points(K, pose, TARGET.points(0).reshape(-1, 3)).reshape(2, -1, 2)
    shape = pixels.shape[:2]
    return pixels + noise(*pixels.shape), hidden(jnp.array([0, 1]), jnp.array([5, 40]), shape=shape)


@pytest.mark.slow
def test_balls_of_a_biplanar_target(part):
    pixels, ignored = (each.reshape(-1, *each.shape[2:]) for each in part)

    def matched(found):
        return navigation.match_part(
            found,
            ~ignored,
            TARGET,
            0,
            focal_length=2480.0,
            source_to_isocenter=700.0,
            center=K[:2, 2],
        )

    assert_ignored(
        matched, {"found": pixels}, {"found": ignored}, gradient=False, rtol=1e-3, atol=1e-2
    )


def test_balls_of_a_registered_view(part):
    pixels, ignored = part

    def registered(pixels):
        match = navigation.PartMatch(pixels, ~ignored, jnp.zeros(()))
        view, status = navigation.register_view(match, TARGET, 0)
        # Standard deviations: the covariance itself spans ten orders of magnitude.
        return view.H, jnp.sqrt(jnp.abs(view.covariance)), view.rms_mm, status

    assert_ignored(
        registered, {"pixels": pixels}, {"pixels": ignored}, gradient=False, rtol=1e-3, atol=1e-3
    )


def test_frames_of_a_hidden_marker():
    truth = SE3.from_rotation_and_translation(
        SO3.from_rpy_radians(2.5, -0.7, 3.0), jnp.array([200.0, -400.0, 1500.0])
    )
    tracker = navigation.Tracker()
    frames = navigation.marker_frames(truth, tracker, key=jax.random.key(3))
    ignored = jnp.arange(60) < 20

    def mean(frames):
        return navigation.mean_marker(frames, ~ignored, tracker)

    assert_ignored(mean, {"frames": frames}, {"frames": ignored}, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def edges():
    """Points of the nearer rims of both holes and of the contour, and which were not found."""
    angle = jnp.linspace(0.0, 6.2, 32)
    rim = 2.5 * jnp.stack([jnp.cos(angle), jnp.sin(angle), jnp.zeros(32)], axis=1)
    hole = carm.project_points(K, POSE, (NAIL.hole_centers[:, None] + rim[None]).reshape(-1, 3))
    along = jnp.linspace(-40.0, 10.0, 16)
    sides = [jnp.stack([along, jnp.full(16, y), jnp.zeros(16)], axis=1) for y in (-5.9, 5.9)]
    contour = carm.project_points(K, POSE, jnp.concatenate(sides))
    arguments = {"hole": hole.reshape(2, 32, 2), "contour": contour.reshape(2, 16, 2)}
    lost = {"hole": hidden(0, jnp.array([3, 9]), shape=(2, 32))}
    return arguments, {**lost, "contour": hidden(1, jnp.array([0, 7]), shape=(2, 16))}


def edge_points(ignored, hole, contour):
    return distal.EdgePoints(hole, ~ignored["hole"], contour, ~ignored["contour"])


def test_edges_of_a_nail(edges):
    arguments, ignored = edges

    def residual(translation, **points):
        moved = SE3.from_translation(translation) @ POSE
        return distal.nail_residual(moved, edge_points(ignored, **points), K, NAIL)

    arguments = {**arguments, "translation": jnp.array([0.3, -0.2, 1.0])}
    assert_ignored(residual, arguments, ignored, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_edges_of_a_pose_through_holes(edges):
    arguments, ignored = edges
    middles = carm.project_points(K, POSE, NAIL.hole_centers)
    axis = apply(POSE, jnp.eye(3)[:1])[0, :2] - POSE.translation()[:2]
    start = distal.fronto_parallel_pose(middles, axis, K, NAIL)

    def found(**points):
        fit, status = distal.through_hole_pose(edge_points(ignored, **points), start, K, NAIL)
        return fit.T_camera_nail, status

    assert_ignored(found, arguments, ignored, gradient=False, rtol=1e-3, atol=1e-2)
