"""Extremes that keep NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot._reductions import largest, least


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("function", [least, largest])
def test_nan_is_kept(function, jit):
    program = jax.jit(function) if jit else function
    values = jnp.array([[3.0, -1.0], [2.0, 5.0]])
    assert float(program(values)) == (-1.0 if function is least else 5.0)
    for place in np.ndindex(2, 2):
        assert np.isnan(program(values.at[place].set(jnp.nan)))
