"""Zero-order Sugeno fuzzy inference with triangular membership functions."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._types import Scalar


class SugenoRules(eqx.Module):
    """Fuzzy rules of two inputs: "if a is A_i and b is B_j then table[i, j]".

    The membership functions of an input are triangles between neighbouring apexes; the first and
    the last stay 1 beyond their apex, so that memberships add up to 1. Apexes must ascend.
    """

    table: Float[Array, "rows columns"]
    row_apexes: Float[Array, " rows"]
    column_apexes: Float[Array, " columns"]

    def __call__(self, row_input: Scalar, column_input: Scalar) -> Scalar:
        """Evaluate the rules: product for "and", mean of the table weighted by membership.

        The result is piecewise bilinear, continuous, and within the range of the table.
        """
        rows = memberships(row_input, self.row_apexes)
        columns = memberships(column_input, self.column_apexes)
        return rows @ self.table @ columns


def memberships(value: Scalar, apexes: Float[Array, " sets"]) -> Float[Array, " sets"]:
    """Compute the membership of a value in each triangular set; memberships add up to 1.

    Beyond the outer apexes the value belongs to the outer set alone. NaN gives NaN.
    """
    inside = jnp.clip(value, apexes[0], apexes[-1])
    width = apexes[1:] - apexes[:-1]
    rise = jnp.clip((inside - apexes[:-1]) / width, 0.0, 1.0)  # position in each interval, 0 to 1
    one = jnp.ones((1,), rise.dtype)
    return jnp.concatenate([one, rise]) - jnp.concatenate([rise, 0.0 * one])
