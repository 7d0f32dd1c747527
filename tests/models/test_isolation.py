"""The isolation network before it has learned anything, and its sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.models import ISOLATION_PRESETS, Hint, IsolationNet, no_hint

SMALL = IsolationNet(ISOLATION_PRESETS["smoke"])


@pytest.fixture(scope="module")
def params():
    image = jnp.zeros((32, 32))
    return jax.jit(SMALL.init)(jax.random.key(0), image, no_hint(image))


def hint(key):
    thickness, shell, mask = jax.random.uniform(key, (3, 32, 32))
    return Hint(mask, 30.0 * thickness, 5.0 * shell, (thickness > 0.5).astype(jnp.float32))


@pytest.mark.slow
def test_untrained_it_repeats_the_guess_or_says_nothing(params):
    image = jax.random.normal(jax.random.key(1), (32, 32))
    given = hint(jax.random.key(2))
    apply = jax.jit(SMALL.apply)
    found = apply(params, image, given)
    np.testing.assert_allclose(found.thickness, given.thickness, atol=1e-5)
    np.testing.assert_allclose(found.shell, given.shell, atol=1e-5)
    np.testing.assert_allclose(found.log_error, 1.0, atol=1e-6)
    nothing = apply(params, image, no_hint(image))
    np.testing.assert_allclose(nothing.thickness, 0.0, atol=1e-6)
    assert (np.asarray(nothing.mask_logit) < 0.0).all()


def test_the_unit_of_the_image_does_not_matter(params):
    trained = jax.tree.map(lambda leaf: leaf + 0.1, params)
    image = jax.random.normal(jax.random.key(1), (32, 32))
    apply, given = jax.jit(SMALL.apply), hint(jax.random.key(2))
    first, second = (apply(trained, each, given).thickness for each in (image, 7.0 * image - 3.0))
    np.testing.assert_allclose(first, second, atol=2e-3)
    flat = apply(trained, jnp.full((32, 32), 2.0), given).thickness
    assert np.isfinite(np.asarray(flat)).all()


@pytest.mark.parametrize("preset", list(ISOLATION_PRESETS))
def test_every_preset_takes_the_crops_of_a_fit(preset):
    net = IsolationNet(ISOLATION_PRESETS[preset])
    image = jnp.zeros((128, 128))
    found, made = jax.eval_shape(net.init_with_output, jax.random.key(0), image, no_hint(image))
    assert found.thickness.shape == found.mask_logit.shape == (128, 128)
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(made))
    if preset in ("smoke", "cpu60"):
        assert 2 * count < 15e6  # bytes of an asset, at half precision
