"""Landmark network: loss at known values, mirror images, random views, and a few crops learned."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import anatomy, models, training
from dartjax import camera as cameras
from dartjax.camera import Camera
from dartjax.models import FoundLandmarks
from dartjax.training import _landmark_task as task
from dartjax.transforms import SE3, SO3

SIZE = 128
CELLS = 64


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def found_at(places, log_sigma=0.0):
    return FoundLandmarks(
        landmarks=jnp.asarray(places, jnp.float32),
        log_sigma=jnp.full(10, log_sigma),
        swapped=jnp.zeros(3),
        heat=jnp.zeros((10, CELLS, CELLS)),
        mask=jnp.zeros((CELLS, CELLS)),
    )


def losses(found, places, visible=None):
    visible = jnp.ones(10, bool) if visible is None else visible
    mask = jnp.zeros((SIZE, SIZE))
    return training.landmark_loss(found, jnp.asarray(places, jnp.float32), visible, mask)[1]


def test_the_likelihood_at_known_values():
    true = np.full((10, 2), 60.0)
    terms = losses(found_at(true + np.array([3.0, 4.0]), log_sigma=math.log(2.0)), true)
    assert terms["place"] == pytest.approx(math.sqrt(3.0) * 5.0 / 2.0 + 2.0 * math.log(2.0))
    # A flat heatmap has the entropy of its cells, whatever the target.
    assert terms["heat"] == pytest.approx(2.0 * math.log(CELLS), rel=1e-5)


def test_the_likelihood_is_best_where_the_deviation_is_right():
    """The expected distance of the distribution is 2 s / sqrt(3)."""
    true = np.full((10, 2), 60.0)
    off = true + np.array([4.0, 0.0])

    def cost(log_sigma):
        return losses(found_at(off, log_sigma), true)["place"]

    best = math.log(math.sqrt(3.0) / 2.0 * 4.0)
    assert jax.grad(cost)(best) == pytest.approx(0.0, abs=1e-5)
    assert cost(best) < min(cost(best - 0.3), cost(best + 0.3))


def test_invisible_landmarks_do_not_count():
    true = np.full((10, 2), 60.0)
    wrong = true.copy()
    wrong[3] += 50.0
    seen = jnp.arange(10) != 3
    assert losses(found_at(wrong), true, seen)["place"] == losses(found_at(true), true)["place"]
    nothing = losses(found_at(true), true, jnp.zeros(10, bool))
    assert nothing["place"] == nothing["heat"] == nothing["swapped"] == 0.0


def test_exchanged_pairs_raise_the_loss_of_the_swap():
    true = np.linspace(20.0, 100.0, 20).reshape(10, 2)
    exchanged = true[list(anatomy.PARTNER)]
    told = eqx.tree_at(lambda f: f.swapped, found_at(exchanged), jnp.full(3, 4.0))
    assert losses(told, true)["swapped"] < 0.05
    assert losses(eqx.tree_at(lambda f: f.swapped, told, -told.swapped), true)["swapped"] > 3.0


def view_from(yaw_deg):
    turn = SO3.from_z_radians(jnp.radians(yaw_deg)) @ SO3.from_x_radians(jnp.pi / 2)
    pose = SE3.from_rotation_and_translation(turn, jnp.array([0.0, 0.0, 700.0]))
    focal = jnp.full(2, 900.0)
    return Camera(pose, focal, jnp.full(2, SIZE / 2.0), jnp.asarray(1000.0), (SIZE, SIZE))


def points(rng):
    """Ten landmarks, symmetric about the patient's midplane x = 0."""
    where = rng.uniform(-30.0, 30.0, (10, 3))
    for i, partner in enumerate(anatomy.PARTNER):
        if partner == i:
            where[i, 0] = 0.0
        elif partner > i:
            where[partner] = where[i] * [-1.0, 1.0, 1.0]
    return jnp.asarray(where, jnp.float32)


def test_a_mirrored_view_is_the_view_of_the_mirrored_patient(rng):
    """A symmetric patient: the mirrored view is one of the same patient, from the other side."""
    where = points(rng)
    image = jnp.asarray(rng.uniform(size=(SIZE, SIZE)), jnp.float32)
    shown = task._shown(image, image, view_from(30.0), where, jnp.ones_like(image))
    mirrored = task.mirror(shown)
    rotation = SO3.from_matrix(mirrored.view)
    old = view_from(30.0)
    pose = SE3.from_rotation_and_translation(rotation, old.camera_from_world.translation())
    other = Camera(pose, old.focal_length, old.principal_point, old.sdd, old.image_size)
    np.testing.assert_allclose(jnp.linalg.det(mirrored.view), 1.0, rtol=1e-5)
    np.testing.assert_allclose(cameras.project(other, where), mirrored.landmarks, atol=1e-2)
    twice = task.mirror(mirrored)
    for again, once in zip(jax.tree.leaves(twice), jax.tree.leaves(shown), strict=True):
        np.testing.assert_allclose(again, once, atol=1e-4)


def synthetic_crops(rng, count=6):
    """Crops of bright discs at the landmarks of random symmetric patients."""
    view = view_from(20.0)
    where = jnp.stack([points(rng) for _ in range(count)])
    pixel = cameras.pixel_centers(view)
    batch = []
    for each in where:
        at = cameras.project(view, each)
        away = jnp.sum((pixel[None] - at[:, None, None]) ** 2, axis=-1)
        gain = 1.0 + 0.3 * jnp.arange(10)
        image = jnp.sum(gain[:, None, None] * jnp.exp(-0.5 * away / 9.0), axis=0)
        inside = jnp.sum((pixel - SIZE / 2.0) ** 2, axis=-1) < 40.0**2
        batch.append(
            training.LandmarkBatch(
                image, inside.astype(jnp.float32), view, jnp.asarray(each, jnp.float32)
            )
        )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *batch)


def test_random_views_keep_landmarks_and_image_together(rng):
    """In every drawn view the discs are where the landmarks are said to be."""
    batch = synthetic_crops(rng, 1)
    own = jax.tree.map(lambda leaf: leaf[0], batch)
    shown = [task._varied(own, key=jax.random.key(seed)) for seed in range(6)]
    for each in shown:
        at = np.asarray(each.landmarks)[np.asarray(each.visible)].astype(int)
        image = np.asarray(each.image[..., 0])
        assert np.median(image[at[:, 1], at[:, 0]]) > np.median(image) + 0.1


@pytest.mark.slow
def test_a_few_crops_are_learned(rng):
    batch = synthetic_crops(rng)
    net = models.LandmarkNet(models.LANDMARK_PRESETS["smoke"])
    params = training.untrained_landmarks(net, jax.random.key(0))
    schedule = training.Schedule(300, 4e-3)
    state = training.train_state(params, schedule)

    def loss(params, batch, key):
        shown = jax.vmap(task._as_it_is)(batch)
        costs, terms = jax.vmap(lambda s: task._loss(net, params, s))(shown)
        return jnp.mean(costs), jax.tree.map(jnp.mean, terms)

    step = jax.jit(lambda s, b: training.train_step(s, b, loss, schedule, key=jax.random.key(1)))
    for _ in range(300):
        state, _ = step(state, batch)
    shown = jax.vmap(task._as_it_is)(batch)
    found = jax.vmap(lambda s: net.apply({"params": state.params}, s.image, s.view))(shown)
    off = np.linalg.norm(found.landmarks - shown.landmarks, axis=-1)[np.asarray(shown.visible)]
    assert np.median(off) < 3.0
