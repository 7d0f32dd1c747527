"""Landmark network: shapes, soft-argmax, and what the view tells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import anatomy, models
from dartjax.models._landmarks import _means

CONFIG = models.LANDMARK_PRESETS["smoke"]
NET = models.LandmarkNet(CONFIG)


@pytest.fixture(scope="module")
def params():
    image = jnp.zeros((CONFIG.image_size, CONFIG.image_size, 3))
    return jax.jit(NET.init)(jax.random.key(0), image, jnp.eye(3))["params"]


def test_the_output_is_in_the_pixels_of_the_crop(params):
    image = jax.random.normal(jax.random.key(1), (CONFIG.image_size, CONFIG.image_size, 3))
    found = NET.apply({"params": params}, image, jnp.eye(3))
    assert found.heat.shape == (10, CONFIG.map_size, CONFIG.map_size)
    assert found.mask.shape == (CONFIG.map_size, CONFIG.map_size)
    assert np.all((found.landmarks > 0.0) & (found.landmarks < CONFIG.image_size))
    assert found.log_sigma.shape == (10,) and found.swapped.shape == (3,)


def test_a_heatmap_of_one_cell_is_the_middle_of_that_cell():
    shares = jnp.zeros((10, 8, 8)).at[:, 2, 5].set(1.0)  # row 2, column 5
    np.testing.assert_allclose(_means(shares, 2.0)[0], [11.0, 5.0])


def test_the_direction_of_the_view_is_used(params):
    image = jax.random.normal(jax.random.key(1), (CONFIG.image_size, CONFIG.image_size, 3))
    from_front = NET.apply({"params": params}, image, jnp.eye(3))
    from_behind = NET.apply({"params": params}, image, jnp.diag(jnp.array([-1.0, 1.0, -1.0])))
    assert np.abs(from_front.heat - from_behind.heat).max() > 1e-4


def test_pairs_are_left_and_right():
    names = anatomy.LANDMARK_NAMES
    assert len(models.LANDMARK_PAIRS) == 3
    for left, right in models.LANDMARK_PAIRS:
        assert names[left].replace("left", "right") == names[right]
