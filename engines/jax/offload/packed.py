"""4-bit values outside the devices: two in a byte, since a host has no type for them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from engines.core.errors import Unsupported
from engines.jax.offload.layers import Arrived, Fetch, Layers
from engines.offload.events import Log
from engines.transformer.params.quantize import FOUR_BITS


class PackedLayers:
    """Layers of which 4-bit values wait packed in bytes, and are unpacked by the devices once they have arrived."""

    copies, first = 1, ()

    def __init__(self, layers: Layers, placed: Sequence[Any]) -> None:
        """``layers`` bring them as :func:`packed_shapes` says, ``placed`` has them as programs read them."""
        self.layers, self.placed = layers, placed

    @contextmanager
    def opened(self, order: Sequence[int], log: Log) -> Iterator[Fetch]:
        """See :class:`engines.jax.offload.layers.Layers`."""
        with self.layers.opened(order, log) as fetch:

            def unpacking(layer: int) -> Arrived:
                found = fetch(layer)
                return found._replace(arrays=_unpacked(found.arrays, self.placed[layer]))

            yield unpacking

    def close(self) -> None:
        """See :class:`engines.jax.offload.layers.Layers`."""
        self.layers.close()


def has_four_bits(placed: Any) -> bool:
    """Whether any array of a pytree has 4-bit values."""
    return any(_is_narrow(each) for each in jax.tree.leaves(placed))


def packed_shapes(placed: Any) -> Any:
    """The shapes of a pytree as they wait: two neighbouring columns of 4 bits in a byte.

    Raises:
        Unsupported: a device's part has an odd number of columns.
    """

    def packed_shape(each: Any) -> Any:
        if not _is_narrow(each):
            return each
        columns = each.sharding.shard_shape(each.shape)[-1]
        if columns % 2:
            raise Unsupported(
                f"weight_dtype={jnp.dtype(each.dtype).name}: a device's part of a matrix has {columns} columns, which "
                "are not packed in bytes to wait outside it; use weight_dtype=int8, or offload=none"
            )
        shape = (*each.shape[:-1], each.shape[-1] // 2)
        return jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=each.sharding)

    return jax.tree.map(packed_shape, placed)


def packed(arrays: Any) -> Any:
    """The arrays of a pytree as they wait; those of 4 bits are given up."""

    def one(each: Array) -> Array:
        if not _is_narrow(each):
            return each
        made: Array = jax.block_until_ready(_converter(_pack, each.sharding)(each))
        each.delete()
        return made

    return jax.tree.map(one, arrays)


def _unpacked(arrays: Any, placed: Any) -> Any:
    def one(each: Array, to: Any) -> Array:
        if not _is_narrow(to):
            return each
        target = to.format if to.format.layout is not None else to.sharding
        made: Array = _converter(_unpack(jnp.dtype(to.dtype).name), target)(each)
        return made

    return jax.block_until_ready(jax.tree.map(one, arrays, placed))


@cache
def _converter(convert: Callable[[Array], Array], placed: Any) -> Any:
    return jax.jit(convert, out_shardings=placed)


def _pack(values: Array) -> Array:
    return lax.bitcast_convert_type(values.reshape(*values.shape[:-1], -1, 2), jnp.uint8)


@cache
def _unpack(dtype: str) -> Callable[[Array], Array]:
    def unpack(values: Array) -> Array:
        pairs = lax.bitcast_convert_type(values, jnp.dtype(dtype))
        return pairs.reshape(*values.shape[:-1], -1)

    return unpack


def _is_narrow(each: Any) -> bool:
    return jnp.dtype(each.dtype).name in FOUR_BITS
