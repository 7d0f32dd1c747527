"""Training step: it learns, is reproducible, and tolerates gradients that are not finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dartjax.training import Schedule, train_state, train_step

SCHEDULE = Schedule(200, learning_rate=0.05, warmup_steps=10, weight_decay=0.0, ema_decay=0.9)
TRUE = jnp.array([[1.0, -2.0], [0.5, 3.0]])


def loss(params, batch, key):
    noise = 1e-3 * jax.random.normal(key)
    off = batch @ (params["w"] - TRUE) + params["b"]
    return jnp.mean(off**2) + noise, {"bias": jnp.abs(params["b"])}


@functools.partial(jax.jit)
def advance(state, batch):
    return train_step(state, batch, loss, SCHEDULE, key=jax.random.key(0))


def batch_of(step):
    return jax.random.normal(jax.random.key(step), (8, 2))


def begin():
    return train_state({"w": jnp.zeros((2, 2)), "b": jnp.ones(())}, SCHEDULE)


def test_the_loss_falls_and_the_average_follows():
    state = begin()
    for step in range(200):
        state, numbers = advance(state, batch_of(step))
    np.testing.assert_allclose(state.params["w"], TRUE, atol=0.05)
    np.testing.assert_allclose(state.average["w"], TRUE, atol=0.05)
    assert float(numbers["bias"]) < 0.05 and int(state.step) == 200


def test_random_numbers_depend_on_the_step():
    state, _ = advance(begin(), batch_of(0))
    again, _ = advance(begin(), batch_of(0))
    jax.tree.map(np.testing.assert_array_equal, state, again)
    _, first = advance(state, batch_of(1))
    late = train_step(state, batch_of(1), loss, SCHEDULE, key=jax.random.key(1))[1]
    assert float(first["loss"]) != float(late["loss"])


def test_a_gradient_that_is_not_finite_is_ignored():
    state, _ = advance(begin(), batch_of(0))
    after, numbers = advance(state, batch_of(1).at[0, 0].set(jnp.nan))
    assert np.isnan(float(numbers["loss"]))
    assert np.isfinite(np.asarray(after.params["w"])).all()
    # Momentum alone moves them, by no more than a step.
    assert float(jnp.abs(after.params["w"] - state.params["w"]).max()) < 0.06
    assert int(after.step) == 2
