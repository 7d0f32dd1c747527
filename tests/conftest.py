"""Settings of every test session."""

import gc

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_configure(config):
    """Programs are compiled once for all workers, and not again by the next session."""
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # Quick tests spend their time compiling programs that run once: LLVM need not optimise them.
    is_quick = config.getoption("markexpr") == "not slow"
    jax.config.update("jax_disable_most_optimizations", is_quick)
    # Traces are many small objects, and seldom garbage: collections of all of them cost a tenth.
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


@pytest.fixture
def x64():
    """Run the test with 64-bit JAX arrays, for finite differences."""
    with jax.enable_x64(True):
        yield
