"""Zero-order Sugeno inference: rules over triangular sets, answers mixed by membership."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._types import Scalar


class SugenoRules(eqx.Module):
    """Rules "if a is A_i and b is B_j then table[i, j]".

    The sets of an input are triangles between neighbouring apexes, the outer two open to the
    outside, so that memberships add up to one. Apexes must ascend.
    """

    table: Float[Array, "rows columns"]
    row_apexes: Float[Array, " rows"]
    column_apexes: Float[Array, " columns"]

    def __call__(self, row_input: Scalar, column_input: Scalar) -> Scalar:
        """The rules' answer: product for "and", mean weighted by membership. Piecewise bilinear,
        continuous, and between the least and the largest entry of the table."""
        rows = memberships(row_input, self.row_apexes)
        columns = memberships(column_input, self.column_apexes)
        return rows @ self.table @ columns


def memberships(value: Scalar, apexes: Float[Array, " sets"]) -> Float[Array, " sets"]:
    """How much a value belongs to each triangular set, adding up to 1; beyond the outer apexes
    it belongs to the outer set alone. NaN gives NaN."""
    inside = jnp.clip(value, apexes[0], apexes[-1])
    width = apexes[1:] - apexes[:-1]
    rise = jnp.clip((inside - apexes[:-1]) / width, 0.0, 1.0)  # past each gap, 0..1
    one = jnp.ones((1,), rise.dtype)
    return jnp.concatenate([one, rise]) - jnp.concatenate([rise, 0.0 * one])
