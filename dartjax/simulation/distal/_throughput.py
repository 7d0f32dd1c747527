"""How many cases one compiled call gets through."""

import time
from collections.abc import Callable
from typing import Any

import jax


def cases_per_second(function: Callable[[Any], Any], given: Any) -> float:
    """Measure the cases of `given` (leading axis) per second in one call, after compilation."""
    run = jax.jit(function).lower(given).compile()
    started = time.perf_counter()
    jax.block_until_ready(run(given))
    return len(jax.tree.leaves(given)[0]) / (time.perf_counter() - started)
