"""Batches: every case equals a single run; one compiled program per function and shape."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.registration import map_cases, stack

COMPILED = "/jax/core/compile/backend_compile_duration"


def polynomial(x, y):
    return {"value": jnp.sum(x**2) + y, "root": jnp.sqrt(y)}


@contextlib.contextmanager
def compilations():
    """Collect the names of the programs compiled in the block."""
    seen = []

    def listen(event, duration, **about):
        del duration
        if event == COMPILED:
            seen.append(about)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def arguments(num_cases):
    x = np.arange(3.0 * num_cases, dtype=np.float32).reshape(num_cases, 3)
    return jnp.asarray(x), jnp.arange(num_cases, dtype=jnp.float32)


@pytest.mark.parametrize("num_cases", [1, 4, 7])
def test_every_case_equals_a_single_run(num_cases):
    x, y = arguments(num_cases)
    found = map_cases(polynomial, x, y, chunk=4)
    np.testing.assert_allclose(found["value"], (np.asarray(x) ** 2).sum(1) + np.asarray(y))
    assert found["root"].shape == (num_cases,)


def test_a_batch_of_another_size_compiles_no_new_program():
    sizes = (5, 9, 3, 1)
    batches = [arguments(size) for size in sizes]
    map_cases(polynomial, *batches[0], chunk=4)
    traced = []

    def counted(x, y):
        traced.append(x.shape)
        return polynomial(x, y)

    for batch in batches:
        map_cases(counted, *batch, chunk=4)
    assert len(traced) == 1
    with compilations() as seen:
        map_cases(counted, *batches[0], chunk=4)
    assert not seen
    jax.clear_caches()
    map_cases(counted, *batches[1], chunk=4)
    assert len(traced) == 1


def test_another_shape_or_function_compiles_another_program():
    x, y = arguments(4)
    first = map_cases(polynomial, x, y, chunk=2)
    wider = map_cases(polynomial, jnp.concatenate([x, x], axis=1), y, chunk=2)
    other = map_cases(lambda x, y: jnp.sum(x) - y, x, y, chunk=2)
    np.testing.assert_allclose(wider["value"] - y, 2.0 * (first["value"] - y))
    np.testing.assert_allclose(other, np.asarray(x).sum(1) - np.asarray(y))


def test_random_keys_and_pytrees_are_split_like_arrays():
    keys = jax.random.split(jax.random.key(0), 3)
    cases = stack([{"a": jnp.full(2, float(i))} for i in range(3)])
    found = map_cases(lambda c, key: c["a"] + jax.random.normal(key), cases, keys, chunk=2)
    expected = jnp.arange(3.0) + jax.vmap(jax.random.normal)(keys)
    np.testing.assert_allclose(found, jnp.stack([expected, expected], axis=1), rtol=1e-6)


def test_progress_is_reported_after_every_chunk():
    told = []
    map_cases(polynomial, *arguments(5), chunk=2, on_chunk=lambda *x: told.append(x))
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]
