"""Settings of every test session."""

import gc
import os
import pathlib

import jax
import jaxlib
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_configure(config):
    """Programs are compiled once for all workers, and not again by the next session."""
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if config.getoption("markexpr") == "not slow":
        _compile_quickly()
    # Traces are many small objects, and seldom garbage: collections of all of them cost a tenth.
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def _compile_quickly():
    """Quick tests spend their time compiling programs that run once: half of it can be saved. The
    slow tests compile as users do."""
    jax.config.update("jax_disable_most_optimizations", True)
    if jaxlib.__version__.startswith("0.10."):  # an XLA that does not know a flag stops
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false"


# Every compiled program takes several memory mappings, of which Linux gives a process 65,530. XLA
# aborts when there is no more.
_MOST_MAPPINGS = 30_000


@pytest.fixture(scope="module", autouse=True)
def _programs_are_released(pytestconfig):
    """Forget the compiled programs of earlier modules before they take too many mappings. The
    quick tests stay below that."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if pytestconfig.getoption("markexpr") == "not slow" or not maps.exists():
        return
    if maps.read_bytes().count(b"\n") > _MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def x64():
    """Run the test with 64-bit JAX arrays, for finite differences."""
    with jax.enable_x64(True):
        yield
