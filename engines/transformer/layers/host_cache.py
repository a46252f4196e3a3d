"""A cache in host memory: each layer's part comes to the device for its turn, and its new tokens go back.

On a TPU a copy between the two memories takes a slice along the slowest dimension alone. So positions of all layers
are one dimension, the first: a layer is a slice of it, and so are a step's new tokens in it. On the device a layer's
part is a cache of one layer, as any other.
"""

from collections.abc import Sequence
from typing import Any, Final

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from engines.transformer.params.memory_layout import on_tpu

POSITIONS: Final = 3
"""The dimension of positions in a cache on the device: [layers, batch, slots, positions, dim]."""


def host_spec(spec: P) -> P:
    """The PartitionSpec of an array of the cache in host memory, by that on the device."""
    return P(None, *(each for number, each in enumerate(spec) if number not in (0, POSITIONS)))


def on_host(described: jax.ShapeDtypeStruct, mesh: Mesh, spec: P) -> jax.ShapeDtypeStruct:
    """The same array of the cache in host memory: [layers · positions, batch, slots, dim]."""
    layers, batch, slots, held, *dim = described.shape
    shape = (layers * held, batch, slots, *dim)
    sharding = NamedSharding(mesh, host_spec(spec)).with_memory_kind("pinned_host")
    if not on_tpu(mesh) or not dim:
        return jax.ShapeDtypeStruct(shape, described.dtype, sharding=sharding)
    # Tiles of the two fastest dimensions: of a chip's only slot those would be mostly padding.
    alone = sharding.shard_shape(shape)[2] == 1
    order: Sequence[int] = (0, 2, 1, 3) if alone else (0, 1, 2, 3)
    placed = Format(Layout(major_to_minor=tuple(order)), sharding)
    return jax.ShapeDtypeStruct(shape, described.dtype, sharding=placed)


def arrived(cache: dict[str, Array], number: Any, held: int, *, empty: bool) -> dict[str, Array]:
    """Layer ``number`` of a cache of ``held`` positions a layer, on the device; ``empty``: as nothing of it is read."""

    def one(each: Array) -> Array:
        if empty:
            return jnp.zeros((1, *each.shape[1:3], held, *each.shape[3:]), each.dtype)
        rows = lax.dynamic_slice_in_dim(each, number * held, held)
        moved = jax.device_put(rows, jax.memory.Space.Device)
        return jnp.moveaxis(moved, 0, POSITIONS - 1)[None]

    return {name: one(each) for name, each in cache.items()}


def returned(
    cache: dict[str, Array], layer: dict[str, Array], number: Any, held: int, position: Any, time: int
) -> dict[str, Array]:
    """The cache with ``time`` new tokens of ``layer``, the one of that ``number``, from ``position`` on."""

    def one(each: Array, mine: Array) -> Array:
        new = lax.dynamic_slice_in_dim(mine[0], position, time, POSITIONS - 1)
        rows = jax.device_put(jnp.moveaxis(new, POSITIONS - 1, 0), jax.memory.Space.Host)
        written: Array = lax.dynamic_update_slice_in_dim(each, rows, number * held + position, 0)
        return written

    return {name: one(each, layer[name]) for name, each in cache.items()}
