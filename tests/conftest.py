"""Settings of every test session."""

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture
def x64():
    """Run the test with 64-bit JAX arrays, for finite differences."""
    with jax.enable_x64(True):
        yield
