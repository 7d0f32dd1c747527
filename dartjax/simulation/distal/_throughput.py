"""Throughput of one compiled call."""

import time
from collections.abc import Callable
from typing import Any

import jax


def cases_per_second(function: Callable[[Any], Any], given: Any) -> float:
    """Measure the cases per second of one compiled call on `given` (leading axis: case)."""
    run = jax.jit(function).lower(given).compile()
    started = time.perf_counter()
    jax.block_until_ready(run(given))
    return len(jax.tree.leaves(given)[0]) / (time.perf_counter() - started)
