"""Collectives inside ``shard_map``.

Every function takes mesh axes by name, slowest first; without axes they return x unchanged.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.params.grouped import Grouped, along
from engines.transformer.params.memory_layout import LANES
from engines.transformer.partition.axes import Axes

Gathered = TypeVar("Gathered", Array, Grouped, Array | Grouped)
ONE_SHOT_BYTES: Final = 1 << 19
"""Up to this many bytes in all, a sum gathers all terms instead of running an all-reduce."""
MAX_TERMS: Final = 4
"""Up to this many shards, :func:`all_to_all_terms` sends all terms instead of their sum."""


def all_gather(x: Gathered, axes: Axes, dim: int) -> Gathered:
    """[…, N.axes, …] → […, N, …], of an array or of each array of a matrix in groups."""
    if not axes:
        return x

    def gathered(part: Array, axis: int, _unit: int) -> Array:
        return as_bytes(part, lambda sent: lax.all_gather(sent, axes, axis=axis, tiled=True))

    whole: Gathered = along(x, dim, gathered)
    return whole


def as_bytes(x: Array, send: Callable[[Array], Array]) -> Array:
    """``send(x)``, float8 as bytes: a device without float8 arithmetic would convert it to a wider dtype to send it."""
    if x.dtype.itemsize > 1 or not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype == jnp.float4_e2m1fn:
        return send(x)
    arrived: Array = lax.bitcast_convert_type(send(lax.bitcast_convert_type(x, jnp.uint8)), x.dtype)
    return arrived


def reduce_scatter(x: Array, axes: Axes, dim: int) -> Array:
    """[…, N, …] {unreduced over axes} → […, N.axes, …].

    Shards are a first dimension of their own (:func:`shards_first`): a TPU runs a reduce-scatter within a tile as an
    all-reduce and a slice, which sends twice as much.
    """
    if not axes:
        return x
    summed: Array = lax.psum_scatter(shards_first(x, axes, dim), axes, scatter_dimension=0, tiled=False)
    return summed


def shards_first(x: Array, axes: Axes, dim: int) -> Array:
    """[…, N, …] → [shards, …, N.axes, …], as :func:`reduce_scatter` sends them.

    The barrier keeps this shape from propagating back to the weights of the matmul that made x, which a TPU would then
    copy in every layer. Columns of many tokens are transposed before the barrier: a TPU's matmul then writes them in
    the order in which they are sent, without a copy.
    """
    shards = lax.psum(1, axes) if axes else 1
    if x.ndim == 2 and dim == 1 and x.shape[0] % LANES == 0:
        columns: Array = lax.optimization_barrier(x.T)
        return columns.reshape(shards, -1, x.shape[0]).swapaxes(1, 2)
    x = lax.optimization_barrier(x)
    return jnp.moveaxis(x.reshape(*x.shape[:dim], shards, -1, *x.shape[dim + 1 :]), dim, 0)


def all_to_all_terms(shards: Array, axes: Axes) -> Array:
    """[shards, …] {unreduced over axes} → [terms, …], whose sum is this chip's shard: one term per chip, or the sum.

    An all-to-all, unlike a reduce-scatter, can overlap a matmul. Along a ring of n it sends n²/(4(n − 1)) times as many
    bytes, so above :data:`MAX_TERMS` chips a reduce-scatter is used.
    """
    if not axes:
        return shards
    if shards.shape[0] > MAX_TERMS:
        summed: Array = lax.psum_scatter(shards, axes, scatter_dimension=0, tiled=True)
        return summed
    terms: Array = lax.all_to_all(shards, axes, split_axis=0, concat_axis=0, tiled=True)
    return terms


def all_reduce(x: Array, axes: Axes) -> Array:
    """{unreduced over axes} → the sum, on every chip.

    A small x is all-gathered and summed locally (:func:`gathers_terms`): an all-reduce takes each hop twice.
    """
    if not axes:
        return x
    terms = lax.all_gather(x, axes) if gathers_terms(x.nbytes, lax.psum(1, axes)) else None
    summed: Array = lax.psum(x, axes) if terms is None else terms.sum(0)
    return summed


def gathers_terms(nbytes: int, shards: int) -> bool:
    """Whether gathering ``shards`` terms of ``nbytes`` takes less time than the additional hops of an all-reduce."""
    return nbytes * shards <= ONE_SHOT_BYTES


def axis_index(axes: Axes) -> Any:
    """This chip's index along ``axes``; 0 without axes."""
    return lax.axis_index(axes) if axes else 0


def local_shard(x: Array, axes: Axes, dim: int, shards: int) -> Array:
    """[…, N, …] on every chip → this chip's […, N.axes, …]."""
    size = x.shape[dim] // shards
    return lax.dynamic_slice_in_dim(x, axis_index(axes) * size, size, dim) if axes else x
