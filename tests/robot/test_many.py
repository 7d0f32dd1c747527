"""Every estimator under `vmap`: a thousand cases against single calls, and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import carm, distal, navigation
from dartjax.transforms import SE3, SO3

pytestmark = pytest.mark.slow
COUNT = 1000
K = carm.intrinsics(2480.0, jnp.array([384.0, 288.0]))
GUIDE, NAIL, TARGET = carm.drill_guide(), carm.locking_nail(), navigation.biplanar_target()
ALL = jnp.ones(28, bool)


def poses(depth=620.0):
    rng = np.random.default_rng(0)
    turn = jax.vmap(lambda a: SO3.from_rpy_radians(*a) @ SO3.from_x_radians(jnp.pi))(
        jnp.asarray(rng.uniform(-0.2, 0.2, (COUNT, 3)), jnp.float32)
    )
    place = rng.uniform((-15, -15, depth - 15), (15, 15, depth + 15), (COUNT, 3))
    return jax.vmap(SE3.from_rotation_and_translation)(turn, jnp.asarray(place, jnp.float32))


def balls_seen():
    pixels = jax.vmap(lambda T: carm.project_points(K, T, GUIDE.balls))(poses())
    return pixels + 0.1 * jax.random.normal(jax.random.key(0), pixels.shape)


def matrix_of(T):
    return T.as_matrix()


def evolved(pixels):
    start = SE3.from_rotation_and_translation(
        SO3.from_x_radians(jnp.pi), jnp.array([0.0, 0.0, 620.0])
    )
    spread = jnp.array([25.0, 25.0, 40.0, 0.2, 0.2, 0.3])
    key = jax.random.key(0)
    return carm.pnp_evolution(pixels, GUIDE.balls, jnp.ones(28), K, start, spread, key=key)


FROM_BALLS = {
    "NL-DLT": lambda p: carm.estimate_pose(p, GUIDE.balls, ALL, K)[0].T_camera_object,
    "DLT": lambda p: carm.pnp_dlt(p, GUIDE.balls, ALL, K),
    "DB": lambda p: carm.pnp_depths(p, GUIDE.balls, jnp.arange(0.0, 24.0, 3.0), K),
    "EV": evolved,
}


@pytest.mark.parametrize("name", FROM_BALLS)
def test_a_thousand_poses_from_balls(name, x64):
    """In double precision: the linear ones are too ill-conditioned to be compared in single."""
    pixels = balls_seen().astype(jnp.float64)
    one = jax.jit(lambda p: matrix_of(FROM_BALLS[name](p)))
    many = jax.jit(jax.vmap(one))(pixels)
    assert many.shape == (COUNT, 4, 4) and np.isfinite(np.asarray(many)).all()
    tolerance = 0.5 if name == "EV" else 1e-3  # mm
    for i in (0, 500, 999):
        np.testing.assert_allclose(many[i], one(pixels[i]), atol=tolerance)
    if name != "EV":  # ranking costs has no derivative
        gradient = jax.jit(jax.vmap(jax.grad(lambda p: jnp.sum(one(p)))))(pixels[:20])
        assert np.isfinite(np.asarray(gradient)).all()


def test_a_thousand_nails():
    """Poses from ellipses and from the edges of through-holes."""
    true = poses(640.0)
    angles = jnp.linspace(0.0, 2.0 * jnp.pi, 64, endpoint=False)
    circle = jnp.stack([2.5 * jnp.cos(angles), 2.5 * jnp.sin(angles), 0.0 * angles], axis=1)
    offset = jnp.array([[-30.0, 0.0, 0.0]])

    def estimates(T):
        pair = [carm.project_points(K, T, circle + i * offset) for i in (0.0, 1.0)]
        first, second = (carm.hull_ellipse(points, jnp.ones(64, bool))[0] for points in pair)
        x_axis = T.rotation().as_matrix()[:2, 0]
        fronto, _ = distal.fronto_parallel_view(first, second, x_axis, K, NAIL)
        generic, _, _ = distal.generic_view(first, second, K, NAIL)
        return matrix_of(fronto), matrix_of(generic)

    fronto, generic = jax.jit(jax.vmap(estimates))(true)
    assert np.isfinite(np.asarray(fronto)).all()
    assert np.isfinite(np.asarray(generic)).mean() > 0.99


def test_a_thousand_points_of_two_planes():
    views = []
    for part in (0, 1):
        turn = SO3.from_matrix(TARGET.R_biplanar_part[part].T)
        pose = SE3.from_rotation_and_translation(turn, jnp.array([0.0, 0.0, 700.0]))
        balls = TARGET.points(part)
        pixels = carm.project_points(K, pose, balls.reshape(-1, 3)).reshape(2, -1, 2)
        match = navigation.PartMatch(pixels, jnp.ones(pixels.shape[:2], bool), jnp.zeros(()))
        views.append((navigation.register_view(match, TARGET, part)[0], pose))
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(view for view, _ in views))
    points = jax.random.uniform(jax.random.key(1), (COUNT, 3), minval=-25.0, maxval=25.0)
    marks = jnp.stack([carm.project_points(K, pose, points) for _, pose in views], axis=1)
    located, status = jax.jit(jax.vmap(navigation.locate_point, (0, None)))(marks, both)
    assert not np.asarray(status).any()
    np.testing.assert_allclose(located.point, points, atol=1e-2)


def test_a_thousand_images():
    """In one call, eight at a time: the intermediate arrays of a thousand would not fit."""
    view = carm.CarmView(K, carm.flat_panel(), SO3.identity())
    turn = SO3.from_z_radians(0.4) @ SO3.from_x_radians(jnp.pi)
    T = SE3.from_rotation_and_translation(turn, jnp.array([0.0, -8.0, 600.0]))
    metal = carm.guide_attenuation(carm.image_rays(view), view, GUIDE, T)
    truth = np.asarray(carm.project_points(K, T, GUIDE.balls))

    @functools.partial(jax.jit, static_argnums=1)
    def detected(keys, batch):
        def one(key):
            image = carm.record_image(jnp.full((576, 768), 3.0), metal, key=key)
            return carm.detect_balls(image)

        return jax.lax.map(one, keys, batch_size=batch)

    found = detected(jax.random.split(jax.random.key(2), COUNT), 8)
    assert found.centers.shape[0] == COUNT
    valid = np.asarray(found.valid)
    assert (valid.sum(axis=1) == 28).mean() > 0.99
    for i in (0, 500, 999):
        centers = np.asarray(found.centers[i])[valid[i]]
        apart = np.linalg.norm(truth[:, None] - centers[None], axis=-1)
        assert apart.min(axis=1).max() < 0.5
