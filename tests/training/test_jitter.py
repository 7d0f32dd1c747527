"""Random crops: points appear where the new camera projects them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera
from dartjax.render import SplatOptions, splat
from dartjax.ssm import posed
from dartjax.training import Jitter, jittered
from tests.registration import scenes


@pytest.fixture(scope="module")
def view():
    return scenes.observations(20.0).cameras


@pytest.fixture(scope="module")
def rendered():
    model = scenes.model()
    surface = posed(model, scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS)
    return jax.jit(lambda seen_by: splat(surface, model.faces, seen_by, SplatOptions(window=9)))


def own_view(view):
    return jax.tree.map(lambda leaf: leaf[0], view)


def test_zero_jitter_is_the_identity(view):
    image = jax.random.uniform(jax.random.key(1), (64, 64))
    mask = (image > 0.5).astype(jnp.float32)
    shown, covered, seen_by = jittered(
        image, mask, own_view(view), Jitter(0.0, 0.0, 0.0), key=jax.random.key(2)
    )
    np.testing.assert_allclose(shown, image, atol=1e-3)
    np.testing.assert_allclose(covered, mask, atol=1e-3)
    np.testing.assert_allclose(seen_by.principal_point, own_view(view).principal_point, atol=1e-3)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_crop_equals_a_render_by_its_camera(view, rendered, seed):
    before = rendered(own_view(view))
    shown, covered, seen_by = jittered(
        before.thickness,
        before.silhouette,
        own_view(view),
        Jitter(0.3, 0.1, 4.0),
        key=jax.random.key(seed),
    )
    after = rendered(seen_by)
    difference = np.abs(np.asarray(shown - after.thickness))
    unmoved = np.abs(np.asarray(before.thickness - after.thickness))
    assert difference.mean() < 0.15 * unmoved.mean()
    assert np.mean((covered > 0.5) != (after.silhouette > 0.5)) < 0.01


def test_the_source_is_fixed_and_the_middle_moves_by_the_shift(view):
    own, image = own_view(view), jnp.zeros((64, 64))
    *_, seen_by = jittered(image, image, own, Jitter(0.3, 0.1, 0.0), key=jax.random.key(6))
    np.testing.assert_allclose(seen_by.source, own.source, atol=0.05)
    middle = camera.back_project(own, jnp.array([[32.0, 32.0]]), jnp.array([600.0]))
    np.testing.assert_allclose(camera.project(seen_by, middle)[0], 32.0, atol=0.05)
    moved = []
    for amount in (Jitter(0.0, 0.0, 3.0), Jitter(0.3, 0.1, 3.0)):
        *_, seen_by = jittered(image, image, own, amount, key=jax.random.key(6))
        moved.append(np.asarray(camera.project(seen_by, middle)[0]) - 32.0)
    assert np.linalg.norm(moved[0]) > 0.5
    np.testing.assert_allclose(*moved, atol=0.05)
