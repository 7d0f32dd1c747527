"""Training step as a pure function of state, batch and key."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from dartjax._types import Scalar

# (parameters, batch, key) -> loss and named metrics, all scalars.
Loss = Callable[[PyTree, PyTree, PRNGKeyArray], tuple[Scalar, dict[str, Scalar]]]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Optimiser schedule: AdamW with linear warm-up and cosine decay of the learning rate to one
    hundredth; gradients clipped to norm 1. The exponential moving average of the parameters is the
    result of the training."""

    num_steps: int
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.02
    ema_decay: float = 0.998

    def optimizer(self) -> optax.GradientTransformation:
        """Make the optimiser. Weight decay excludes biases, norms and position biases."""
        rate = optax.warmup_cosine_decay_schedule(
            0.0,
            self.learning_rate,
            min(self.warmup_steps, self.num_steps // 2),
            self.num_steps,
            0.01 * self.learning_rate,
        )
        return optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adamw(rate, b2=0.99, weight_decay=self.weight_decay, mask=_is_kernel),
        )


def _is_kernel(params: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim > 1 and "relative" not in str(path[-1]), params
    )


class TrainState(eqx.Module):
    """State of a training (plain arrays)."""

    params: PyTree
    average: PyTree  # of the parameters, exponential
    moments: Any  # of the optimiser
    step: Int[Array, ""]


def train_state(params: PyTree, schedule: Schedule) -> TrainState:
    """Make the state before the first step."""
    moments = schedule.optimizer().init(params)
    return TrainState(params, params, moments, jnp.zeros((), jnp.int32))


def train_step(
    state: TrainState, batch: PyTree, loss: Loss, schedule: Schedule, *, key: PRNGKeyArray
) -> tuple[TrainState, dict[str, Scalar]]:
    """Take one training step on a batch; return the new state, and the loss with its metrics.

    The random numbers of a step depend only on `key` and the step number, so a resumed run equals
    an uninterrupted one. A gradient that is not finite is replaced by zero. jit with `loss` and
    `schedule` static.
    """
    own = jax.random.fold_in(key, state.step)
    (value, numbers), gradient = jax.value_and_grad(loss, has_aux=True)(state.params, batch, own)
    finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradient))
    gradient = jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0.0), gradient)
    updates, moments = schedule.optimizer().update(gradient, state.moments, state.params)
    params = optax.apply_updates(state.params, updates)
    # A lower decay in the first steps lets the average follow the parameters closely.
    count = state.step.astype(jnp.float32)
    decay = jnp.minimum(schedule.ema_decay, (1.0 + count) / (10.0 + count))
    average = jax.tree.map(lambda a, b: decay * a + (1.0 - decay) * b, state.average, params)
    return TrainState(params, average, moments, state.step + 1), {"loss": value, **numbers}
