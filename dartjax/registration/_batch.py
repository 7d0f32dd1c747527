"""Many cases at once: vmap in chunks, sharded over the devices of this process."""

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
    """`jax.vmap(function)` over the leading axis of the arguments, `chunk` cases at a time,
    each chunk split over `devices` (all local ones).

    Every chunk has the same shape (the last is filled up by repeating a case), whatever the
    number of cases, and the program of a function and a shape is kept: give the same function
    object again and nothing is compiled. `on_chunk(done, total)` is called once the program is
    there (done = 0) and after each chunk. The result is gathered on the host. On a CPU, ask for
    one device per core (`jax_num_cpu_devices`) to use them all.
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
    weak = getattr(leaf, "weak_type", False)  # random keys have no such thing
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding, weak_type=weak)


@functools.lru_cache(maxsize=64)
def _program(
    function: Callable[..., PyTree],
    structure: Any,
    specs: tuple[jax.ShapeDtypeStruct, ...],
    mesh: jax.sharding.Mesh,
) -> Callable[..., PyTree]:
    """The compiled batch of a function for arguments of these shapes. Every device runs its own
    share: left to itself, the compiler gathers a batch for sorting and decompositions."""
    cases = PartitionSpec("case")
    shares = jax.shard_map(
        jax.vmap(function), mesh=mesh, in_specs=cases, out_specs=cases, check_vma=False
    )
    return jax.jit(shares).lower(*jax.tree.unflatten(structure, specs)).compile()


def stack(cases: list[PyTree]) -> PyTree:
    """A list of equally shaped pytrees as one with a leading case axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
