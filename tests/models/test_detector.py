"""The detector: shapes, the input, proposals, and that images do not influence each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import models
from dartjax.models import DETECTOR_PRESETS, Proposals, VertebraDetector

CONFIG = DETECTOR_PRESETS["smoke"]
NET = VertebraDetector(CONFIG)


@pytest.fixture(scope="module")
def params():
    image = jnp.zeros((CONFIG.image_size, CONFIG.image_size, 3))
    return jax.jit(NET.init)(jax.random.key(0), image)


def find(params, images):
    return jax.jit(jax.vmap(lambda image: NET.apply(params, image)))(images)


def test_every_output_has_a_fixed_size(params):
    images = jax.random.normal(jax.random.key(1), (2, CONFIG.image_size, CONFIG.image_size, 3))
    found = find(params, images)
    n = CONFIG.num_proposals
    assert found.box.shape == found.body_box.shape == (2, n, 4)
    assert found.mask.shape == (2, n, 28, 28)
    assert found.log_level.shape == (2, n, len(models.DETECTED_LEVELS))
    np.testing.assert_allclose(jnp.exp(found.log_level).sum(-1), 1.0, atol=1e-5)
    sides = found.box[..., 2:] - found.box[..., :2]
    assert (sides >= 1.0 - 1e-4).all() and found.box.min() >= 0.0
    assert found.box.max() <= CONFIG.image_size


def test_images_of_a_batch_do_not_influence_each_other(params):
    images = jax.random.normal(jax.random.key(2), (3, CONFIG.image_size, CONFIG.image_size, 3))
    together, alone = find(params, images), find(params, images[1:2])
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a[1], b[0], atol=2e-4)


def test_a_proposal_is_the_box_around_its_peak():
    rows = columns = CONFIG.image_size // CONFIG.stride
    heat = jnp.full((rows, columns), -9.0).at[5, 7].set(2.0)
    sides = jnp.broadcast_to(jnp.array([3.0, 4.0, 5.0, 6.0]), (rows, columns, 4))
    score, boxes = models.best_proposals(Proposals(heat, sides), CONFIG)
    assert float(score[0]) == 2.0
    middle = (np.array([7, 5]) + 0.5) * CONFIG.stride
    expected = [middle[0] - 3.0, middle[1] - 4.0, middle[0] + 5.0, middle[1] + 6.0]
    np.testing.assert_allclose(boxes[0], expected)


def test_the_input_does_not_depend_on_the_unit_of_the_grey_values():
    image = jax.random.uniform(jax.random.key(3), (64, 64), maxval=5.0)
    exposed = jnp.ones((64, 64))
    shown = models.detector_input(image, exposed)
    other = models.detector_input(250.0 * image + 90.0, exposed)
    np.testing.assert_allclose(shown, other, atol=1e-3)
    assert float(shown[..., 0].min()) >= -0.2 and float(shown[..., 0].max()) <= 1.2


def test_what_is_not_exposed_does_not_change_the_input():
    image = jax.random.uniform(jax.random.key(4), (64, 64))
    exposed = jnp.zeros((64, 64)).at[16:48, 20:60].set(1.0)
    shown = models.detector_input(image, exposed)
    other = models.detector_input(jnp.where(exposed > 0.0, image, 1e6), exposed)
    np.testing.assert_allclose(shown, other, atol=1e-6)
    assert not np.asarray(shown)[:16].any()


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_flat_image_gives_a_finite_input(value):
    for exposed in (jnp.ones((32, 32)), jnp.zeros((32, 32))):
        shown = models.detector_input(jnp.full((32, 32), value), exposed)
        assert np.isfinite(shown).all() and not np.asarray(shown)[..., :2].any()
