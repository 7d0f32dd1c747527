"""Windows, shifts and sizes against a plain attention over all tokens and the published counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.models import SWIN_PRESETS, PatchMerging, SwinBlock, SwinTransformer
from dartjax.models import _swin as swin


def initialised(net, x, seed=2):
    return jax.jit(net.init)(jax.random.key(seed), x)


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(("preset", "published"), [("tiny", 27_519_354), ("base", 86_743_224)])
def test_as_many_parameters_as_the_published_backbones(preset, published):
    net = SwinTransformer(SWIN_PRESETS[preset])
    image = jax.ShapeDtypeStruct((224, 224, 3), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), image)["params"]
    assert count(params) == published


def test_maps_halve_and_widen():
    net = SwinTransformer(SWIN_PRESETS["nano"])
    image = jax.ShapeDtypeStruct((96, 96, 1), jnp.float32)
    maps = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x)[0], image)
    assert [each.shape for each in maps] == [(24, 24, 24), (12, 12, 48), (6, 6, 96)]


def test_windows_come_back():
    x = jnp.arange(8 * 12 * 2.0).reshape(8, 12, 2)
    windows = swin.to_windows(x, 4)
    assert windows.shape == (6, 16, 2)
    np.testing.assert_array_equal(windows[1].reshape(4, 4, 2), x[:4, 4:8])
    np.testing.assert_array_equal(swin.from_windows(windows, 8, 12), x)


def naive_attention(params, x, window, shift, num_heads):
    """Attention of every token over the whole map, pair by pair in numpy: only tokens of the same
    shifted window, without wrapping around, and the bias of their offset."""
    height, width, channels = x.shape
    dim = channels // num_heads
    qkv = x @ np.asarray(params["qkv"]["kernel"]) + np.asarray(params["qkv"]["bias"])
    q, k, v = np.split(qkv, 3, axis=-1)
    table = np.asarray(params["relative_position_bias"]).reshape(
        2 * window - 1, 2 * window - 1, num_heads
    )
    out = np.zeros_like(x)
    cells = [(i, j) for i in range(height) for j in range(width)]

    def window_of(i, j):
        return (i + window - shift) // window, (j + window - shift) // window

    for i, j in cells:
        seen = [(a, b) for a, b in cells if window_of(a, b) == window_of(i, j)]
        for head in range(num_heads):
            part = slice(head * dim, (head + 1) * dim)
            scores = np.array(
                [
                    q[i, j, part] @ k[a, b, part] / np.sqrt(dim)
                    + table[i - a + window - 1, j - b + window - 1, head]
                    for a, b in seen
                ]
            )
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            out[i, j, part] = sum(
                w * v[a, b, part] for w, (a, b) in zip(weights, seen, strict=True)
            )
    return out @ np.asarray(params["proj"]["kernel"]) + np.asarray(params["proj"]["bias"])


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_shifted_windows_against_masked_attention_pair_by_pair(shift):
    x = jax.random.normal(jax.random.key(1), (8, 12, 8))
    block = SwinBlock(2, 4, shift)
    params = initialised(block, x)["params"]
    params["attention"]["relative_position_bias"] = jax.random.normal(jax.random.key(3), (49, 2))
    params["fc2"] = jax.tree.map(jnp.zeros_like, params["fc2"])  # no MLP: attention alone
    found = jax.jit(block.apply)({"params": params}, x) - x
    plain = np.asarray(x, np.float64)
    normalised = (plain - plain.mean(-1, keepdims=True)) / np.sqrt(
        plain.var(-1, keepdims=True) + 1e-6
    )
    expected = naive_attention(params["attention"], normalised, 4, shift, 2)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_small_map_is_one_window_without_shift():
    x = jax.random.normal(jax.random.key(1), (4, 4, 8))
    plain, shifted = SwinBlock(2, 7, 0), SwinBlock(2, 7, 3)
    params = initialised(plain, x)
    first, second = (jax.jit(each.apply)(params, x) for each in (plain, shifted))
    np.testing.assert_array_equal(first, second)


def test_sides_that_no_window_divides_are_padded():
    x = jax.random.normal(jax.random.key(1), (7, 9, 8))
    block = SwinBlock(2, 4, 2)
    params = initialised(block, x)
    out = jax.jit(block.apply)(params, x)
    assert out.shape == (7, 9, 8) and bool(jnp.all(jnp.isfinite(out)))
    merged = jax.eval_shape(lambda x: PatchMerging().init_with_output(jax.random.key(0), x)[0], x)
    assert merged.shape == (4, 5, 16)


def test_merging_gathers_two_by_two_tokens():
    x = jnp.zeros((4, 4, 1)).at[2:, 2:].set(jnp.array([[1.0, 2.0], [3.0, 4.0]])[..., None])
    layer = PatchMerging()
    params = layer.init(jax.random.key(0), x)
    params["params"]["reduction"]["kernel"] = jnp.eye(4, 2)
    merged = layer.apply(params, x)
    order = (np.array([1.0, 3.0, 2.0, 4.0]) - 2.5) / np.std([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(merged[1, 1], order[:2], atol=1e-4)
    np.testing.assert_allclose(merged[0, 0], 0.0, atol=1e-6)


def test_dropped_paths_leave_the_input():
    x = jax.random.normal(jax.random.key(1), (4, 4, 8))
    block = SwinBlock(2, 4, drop_path=0.5)
    params = initialised(block, x)
    train = jax.jit(lambda key: block.apply(params, x, False, rngs={"drop_path": key}))
    outputs = [train(key) for key in jax.random.split(jax.random.key(0), 40)]
    untouched = [bool(jnp.all(out == x)) for out in outputs]
    assert 2 <= sum(untouched) <= 20  # both branches dropped: one in four
