"""The learned similarity cares neither for the order of the views nor for missing ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.models import SIMILARITY_PRESETS, MultiViewSimilarity, ViewPair, view_code

NET = MultiViewSimilarity(SIMILARITY_PRESETS["smoke"])


def pairs(num_views, seed=0):
    keys = jax.random.split(jax.random.key(seed), 5)
    images = [jax.random.uniform(key, (num_views, 32, 32)) for key in keys[:4]]
    return ViewPair(*images, code=jax.random.normal(keys[4], (num_views, 7)))


@pytest.fixture(scope="module")
def apply():
    views, valid = pairs(3), jnp.ones(3, bool)
    params = jax.jit(NET.init)(jax.random.key(1), views, valid)
    params = jax.tree.map(
        lambda leaf: leaf + 0.02 * jax.random.normal(jax.random.key(2), leaf.shape), params
    )
    return jax.jit(lambda views, valid: NET.apply(params, views, valid))


def as_row(found):
    return np.concatenate([np.atleast_1d(leaf) for leaf in jax.tree.leaves(found)])


@pytest.mark.slow
def test_the_order_of_the_views_does_not_matter(apply):
    views, valid = pairs(3), jnp.array([True, True, False])
    turned = jax.tree.map(lambda leaf: leaf[jnp.array([2, 0, 1])], views)
    np.testing.assert_allclose(
        as_row(apply(views, valid)), as_row(apply(turned, valid[jnp.array([2, 0, 1])])), atol=1e-4
    )
    # But which radiograph belongs to which render and camera does.
    mixed = ViewPair(views.observed[::-1], views.mask, views.rendered, views.silhouette, views.code)
    assert np.abs(as_row(apply(mixed, valid)) - as_row(apply(views, valid))).max() > 1e-3


def test_views_that_are_not_there_are_not_looked_at(apply):
    views, valid = pairs(3), jnp.array([True, True, False])
    other = jax.tree.map(lambda leaf: leaf.at[2].set(7.0), views)
    np.testing.assert_allclose(as_row(apply(views, valid)), as_row(apply(other, valid)), atol=1e-5)
    seen = as_row(apply(other, jnp.ones(3, bool)))
    assert np.abs(seen - as_row(apply(views, valid))).max() > 1e-3


def test_what_is_predicted_has_its_units_bounds_and_a_gradient(apply):
    views, valid = pairs(3), jnp.ones(3, bool)
    found = apply(views, valid)
    assert float(found.log_masd) > 0.0 and -5.0 <= float(found.log_variance) <= 3.0
    assert found.turn.shape == found.shift.shape == (3,) and found.coefficients.shape == (15,)

    def predicted(rendered):
        other = ViewPair(views.observed, views.mask, rendered, views.silhouette, views.code)
        return apply(other, valid).log_masd

    slope = jax.grad(predicted)(views.rendered)
    step = jax.random.normal(jax.random.key(9), slope.shape)
    ahead, behind = (float(predicted(views.rendered + s * 1e-2 * step)) for s in (1, -1))
    assert (ahead - behind) / 2e-2 == pytest.approx(float(jnp.sum(slope * step)), rel=0.05)


@pytest.mark.parametrize("preset", list(SIMILARITY_PRESETS))
def test_every_preset_takes_one_to_four_views(preset):
    net = MultiViewSimilarity(SIMILARITY_PRESETS[preset])
    size = SIMILARITY_PRESETS[preset].size
    for num_views in (1, 4):
        image = jnp.zeros((num_views, size, size))
        views = ViewPair(image, image, image, image, jnp.zeros((num_views, 7)))
        valid = jnp.ones(num_views, bool)
        found, made = jax.eval_shape(net.init_with_output, jax.random.key(0), views, valid)
        assert found.log_masd.shape == ()
        tokens = made["params"]["stem"]["embed"]["kernel"].shape[-1]
        assert tokens == SIMILARITY_PRESETS[preset].width


def test_a_view_is_coded_by_directions_and_distance():
    code = view_code(jnp.array([0.0, 1.0, 0.0]), jnp.array([1.0, 0.0, 0.0]), jnp.asarray(750.0))
    np.testing.assert_allclose(code, [0, 1, 0, 1, 0, 0, 0.75])
