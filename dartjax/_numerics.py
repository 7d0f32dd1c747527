"""Functions that stay finite in value and gradient where the plain formula does not.

Each function states its gradient at the singular point and takes arrays of any shape. Also a
small linear solver whose batches can be split over devices.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def safe_norm(x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
    """Compute the Euclidean norm over the last axis; value 0 and gradient 0 at x = 0 (not NaN)."""
    squared = jnp.sum(x * x, axis=-1)
    is_zero = squared == 0.0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, squared)))


def safe_divide(
    numerator: Float[Array, "*shape"], denominator: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Divide; value 0 and gradient 0 where the denominator is 0."""
    is_zero = denominator == 0.0
    return jnp.where(is_zero, 0.0, numerator / jnp.where(is_zero, 1.0, denominator))


def normalize(x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Compute x / |x| over the last axis; value 0 and gradient 0 at x = 0."""
    norm = safe_norm(x)[..., None]
    return safe_divide(x, jnp.broadcast_to(norm, x.shape))


def pseudo_huber(squared: Float[Array, "*shape"], delta: float) -> Float[Array, "*shape"]:
    """Compute the pseudo-Huber loss delta^2 (sqrt(1 + r^2 / delta^2) - 1): r^2 / 2 for small r,
    delta |r| for large r.

    Takes r^2, not r, so that the gradient exists at r = 0.
    """
    return delta**2 * (jnp.sqrt(1.0 + squared / delta**2) - 1.0)


def solve_positive(matrix: Float[Array, "n n"], right: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Solve a positive definite system by Gauss-Jordan elimination without pivoting.

    A batch takes a few vector operations and can be split over devices; LAPACK needs one call per
    matrix and cannot be split. Differentiable. A matrix that is not positive definite gives a
    meaningless result."""
    index = jnp.arange(len(matrix))

    def eliminate(rows: Float[Array, "n m"], i: Array) -> tuple[Float[Array, "n m"], None]:
        pivot = rows[i] / rows[i, i]
        cleared = rows - rows[:, i][:, None] * pivot[None]
        return jnp.where((index == i)[:, None], pivot[None], cleared), None

    rows = jnp.concatenate([matrix, right], axis=1)
    return jax.lax.scan(eliminate, rows, index)[0][:, len(matrix) :]
