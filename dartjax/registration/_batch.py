"""Many cases at once: vmap in chunks, sharded over the devices of this process."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

PyTree = Any


def map_cases(
    function: Callable[..., PyTree],
    *arguments: PyTree,
    chunk: int = 16,
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
) -> PyTree:
    """`jax.vmap(function)` over the leading axis of the arguments, `chunk` cases at a time,
    each chunk split over all local devices.

    Every chunk has the same shape (the last is filled up by repeating a case), so one program
    is compiled. `on_chunk(done, total)` is called after compilation (done = 0) and after each
    chunk. The result is gathered on the host. On a CPU, ask for one device per core
    (`jax_num_cpu_devices`) to use them all.
    """
    num_cases = len(jax.tree.leaves(arguments)[0])
    devices = jax.local_devices()
    chunk = -(-min(chunk, num_cases) // len(devices)) * len(devices)
    mesh = jax.make_mesh((len(devices),), ("case",), axis_types=(AxisType.Auto,), devices=devices)
    sharding = NamedSharding(mesh, PartitionSpec("case"))

    def part(first: int) -> PyTree:
        index = np.minimum(np.arange(first, first + chunk), num_cases - 1)
        return jax.tree.map(lambda leaf: jax.device_put(leaf[index], sharding), arguments)

    program = jax.jit(jax.vmap(function)).lower(*part(0)).compile()
    on_chunk(0, num_cases)
    results = []
    for first in range(0, num_cases, chunk):
        results.append(jax.tree.map(np.asarray, program(*part(first))))
        on_chunk(min(first + chunk, num_cases), num_cases)
    return jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)[:num_cases]), *results)


def stack(cases: list[PyTree]) -> PyTree:
    """A list of equally shaped pytrees as one with a leading case axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
