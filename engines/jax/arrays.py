"""Arrays of JAX over the devices of a mesh, and what they take of one device."""

from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from engines.transformer.params.quantize import stored_bytes


def replicated(mesh: Mesh, value: NDArray[Any]) -> jax.Array:
    """The whole array on every device."""
    return jax.make_array_from_callback(value.shape, NamedSharding(mesh, P()), lambda index: value[index])


def gathered(array: jax.Array) -> NDArray[Any]:
    """A global array as numpy; every process of the job must call this at the same time."""
    whole: NDArray[Any] = multihost_utils.process_allgather(array, tiled=True)
    return whole


def bytes_per_chip(arrays: Any) -> float:
    """Bytes of the first chip's part of all arrays of a pytree."""
    local = [each.addressable_shards[0].data for each in jax.tree.leaves(arrays)]
    return sum(stored_bytes(each.shape, each.dtype) for each in local)


def described_bytes_per_chip(shapes: Any) -> float:
    """Likewise of shapes with their shardings."""
    leaves = jax.tree.leaves(shapes)
    return sum(stored_bytes(each.sharding.shard_shape(each.shape), each.dtype) for each in leaves)
