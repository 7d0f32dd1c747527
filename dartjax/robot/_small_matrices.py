"""Linear algebra of 3 x 3 matrices in elementwise operations.

Under `vmap`, LAPACK routines run once per matrix. These functions loop over the whole batch and run
on accelerators.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._types import Matrix3

_SQUARINGS = 5
_POLAR_STEPS = 8


def cofactors(M: Matrix3) -> Matrix3:
    """Compute the matrix of cofactors, det(M) M^-T."""
    a, b, c = M
    return jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)])


def smallest_eigenvector(M: Matrix3) -> Float[Array, "3"]:
    """Compute the unit eigenvector of the smallest eigenvalue of a positive semidefinite matrix.

    Squares the adjugate repeatedly, so that one direction dominates. The result is arbitrary if
    the two smallest eigenvalues are equal.
    """
    power = cofactors(M / (jnp.trace(M) + 1e-30))
    for _ in range(_SQUARINGS):
        power = power / (jnp.trace(power) + 1e-30)
        power = power @ power
    length = jnp.sum(power**2, axis=1)
    column = power[jnp.argmax(length)]
    return column / jnp.sqrt(jnp.max(length) + 1e-30)


def nearest_rotation(M: Matrix3) -> Matrix3:
    """Compute the rotation R that maximises trace(R^T M), for a matrix of positive determinant.

    Higham's iteration for the polar decomposition, X -> (g X + X^-T / g) / 2.
    """

    def step(X: Matrix3, _) -> tuple[Matrix3, None]:
        inverse = cofactors(X)
        inverse = inverse / jnp.sum(inverse[0] * X[0])
        g = (jnp.sum(inverse**2) / jnp.sum(X**2)) ** 0.25
        return 0.5 * (g * X + inverse / g), None

    return jax.lax.scan(step, M, length=_POLAR_STEPS)[0]
