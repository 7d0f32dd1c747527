"""Levenberg-Marquardt with a fixed number of steps, for batches of small problems (vmap)."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax._numerics import safe_norm, solve_positive
from dartjax._types import Scalar

_INITIAL_DAMPING = 1e-3
_MIN_COLUMN_NORM = 1e-9  # of the largest column norm: an unknown below it keeps its value
_MIN_DAMPING, _MAX_DAMPING = 1e-9, 1e9


class LeastSquares(eqx.Module):
    """Result of a least-squares solve: the final estimate and its residual."""

    x: Float[Array, " n"]
    residual: Float[Array, " m"]
    jacobian: Float[Array, "m n"]
    cost: Scalar  # half the sum of squares
    finite: Bool[Array, ""]


def levenberg_marquardt(
    residual: Callable[[Float[Array, " n"]], Float[Array, " m"]],
    start: Float[Array, " n"],
    *,
    num_steps: int = 30,
) -> LeastSquares:
    """Minimise half the sum of squares of `residual` from `start`.

    Marquardt's damping scaled by the columns of the Jacobian, multiplied by 0.1 after a step
    that lowers the cost and by 10 after one that does not (which is rejected). An unknown without
    effect on the residual keeps its start value. Never raises: read `finite`.
    """
    jacobian_of = jax.jacfwd(residual)

    def cost_of(r: Float[Array, " m"]) -> Scalar:
        return 0.5 * jnp.sum(r**2)

    def step(state, _):
        x, damping = state
        r, jacobian = residual(x), jacobian_of(x)
        norms = safe_norm(jacobian.T)
        is_active = norms > _MIN_COLUMN_NORM * jnp.max(norms)
        scale = jnp.where(is_active, 1.0 / jnp.where(is_active, norms, 1.0), 0.0)
        scaled = jacobian * scale[None, :]
        normal = scaled.T @ scaled + damping * jnp.eye(len(x), dtype=x.dtype)
        move = -scale * solve_positive(normal, (scaled.T @ r)[:, None])[:, 0]
        better = cost_of(residual(x + move)) < cost_of(r)
        damping = jnp.clip(damping * jnp.where(better, 0.1, 10.0), _MIN_DAMPING, _MAX_DAMPING)
        return (jnp.where(better, x + move, x), damping), None

    damping = jnp.asarray(_INITIAL_DAMPING, start.dtype)
    (x, _), _ = jax.lax.scan(step, (start, damping), length=num_steps)
    r = residual(x)
    finite = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(r))
    return LeastSquares(x, r, jacobian_of(x), cost_of(r), finite)
