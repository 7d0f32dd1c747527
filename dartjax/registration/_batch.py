"""Run a function on many cases: vmap in chunks, sharded over the devices of this process."""

import functools
from collections.abc import Callable, Sequence
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
    devices: Sequence[Any] | None = None,
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
) -> PyTree:
    """Map a function over the leading axis of its arguments, `chunk` cases at a time.

    Each chunk runs under `jax.vmap`, split over `devices` (default: all local devices). All chunks
    have the same shape: the last one repeats a case until it is full. The compiled program is kept
    for each function object and argument shape, so a second call with the same function object
    compiles nothing. `on_chunk(done, total)` is called after compilation (done = 0) and after each
    chunk. The result is gathered on the host. On a CPU, set `jax_num_cpu_devices` to the number of
    cores to use all of them.
    """
    num_cases = len(jax.tree.leaves(arguments)[0])
    devices = jax.local_devices() if devices is None else devices
    chunk = -(-chunk // len(devices)) * len(devices)
    mesh = jax.make_mesh((len(devices),), ("case",), axis_types=(AxisType.Auto,), devices=devices)
    sharding = NamedSharding(mesh, PartitionSpec("case"))

    def part(first: int) -> PyTree:
        index = np.minimum(np.arange(first, first + chunk), num_cases - 1)
        return jax.tree.map(lambda leaf: jax.device_put(leaf[index], sharding), arguments)

    leaves, structure = jax.tree.flatten(part(0))
    program = _program(function, structure, tuple(map(_spec, leaves)), mesh)
    on_chunk(0, num_cases)
    results = []
    for first in range(0, num_cases, chunk):
        results.append(jax.tree.map(np.asarray, program(*part(first))))
        on_chunk(min(first + chunk, num_cases), num_cases)
    return jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)[:num_cases]), *results)


def _spec(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    weak = getattr(leaf, "weak_type", False)  # random keys have no weak type
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding, weak_type=weak)


@functools.lru_cache(maxsize=64)
def _program(
    function: Callable[..., PyTree],
    structure: Any,
    specs: tuple[jax.ShapeDtypeStruct, ...],
    mesh: jax.sharding.Mesh,
) -> Callable[..., PyTree]:
    """Compile the batch of a function for arguments of these shapes.

    `shard_map` makes every device run its own share. Automatic sharding would gather the batch on
    one device for sorting and matrix decompositions.
    """
    cases = PartitionSpec("case")
    shares = jax.shard_map(
        jax.vmap(function), mesh=mesh, in_specs=cases, out_specs=cases, check_vma=False
    )
    return jax.jit(shares).lower(*jax.tree.unflatten(structure, specs)).compile()


def stack(cases: list[PyTree]) -> PyTree:
    """Stack pytrees of equal shapes along a new leading axis (case)."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
