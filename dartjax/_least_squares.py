"""Levenberg-Marquardt with a fixed number of steps: small problems, many at once under vmap."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax._numerics import solve_positive
from dartjax._types import Scalar

_FIRST_DAMPING = 1e-3
_UNSEEN = 1e-9  # of the largest column: such an unknown stays where it is
_LEAST_DAMPING, _GREATEST_DAMPING = 1e-9, 1e9


class LeastSquares(eqx.Module):
    """Where a least-squares problem came to rest."""

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
    that lowers the cost and by 10 after one that does not (which is undone). A direction that
    the residual does not see keeps its start value. Never raises: read `finite`.
    """
    jacobian_of = jax.jacfwd(residual)

    def cost_of(r: Float[Array, " m"]) -> Scalar:
        return 0.5 * jnp.sum(r**2)

    def step(state, _):
        x, damping = state
        r, jacobian = residual(x), jacobian_of(x)
        norms = jnp.linalg.norm(jacobian, axis=0)
        is_seen = norms > _UNSEEN * jnp.max(norms)
        scale = jnp.where(is_seen, 1.0 / jnp.where(is_seen, norms, 1.0), 0.0)
        scaled = jacobian * scale[None, :]
        normal = scaled.T @ scaled + damping * jnp.eye(len(x), dtype=x.dtype)
        move = -scale * solve_positive(normal, (scaled.T @ r)[:, None])[:, 0]
        better = cost_of(residual(x + move)) < cost_of(r)
        damping = jnp.clip(
            damping * jnp.where(better, 0.1, 10.0), _LEAST_DAMPING, _GREATEST_DAMPING
        )
        return (jnp.where(better, x + move, x), damping), None

    damping = jnp.asarray(_FIRST_DAMPING, start.dtype)
    (x, _), _ = jax.lax.scan(step, (start, damping), length=num_steps)
    r = residual(x)
    finite = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(r))
    return LeastSquares(x, r, jacobian_of(x), cost_of(r), finite)
