"""Which part of a layer's cache a pass writes: what goes back to host memory."""

import ctypes
import functools
from dataclasses import dataclass
from typing import Any, Final, Protocol

import jax
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from engines.core.layer_kind import LayerKind
from engines.jax.offload.layers import in_host_memory
from engines.transformer.layers.kv_cache import PREFIX, Cache, held_positions
from engines.transformer.partition.kv_heads import folds_slots, kv_slots
from engines.transformer.partition.plan import Plan

ROWS: Final = 1
POSITIONS: Final = 3
"""The dimensions of rows and of positions of every array of a cache."""
First = int | NDArray[np.int32] | None
"""The position from which on all sequences write, or each one does [batch]; None where it is neither."""


class Written(Protocol):
    """A part of a layer's cache."""

    def cut(self, cache: Cache) -> Cache:
        """It, of a cache on the devices, split over them as the cache is."""
        ...

    def put(self, part: Cache, held: Cache) -> Cache:
        """The cache in host memory, with it; ``held`` is given up."""
        ...


def written_by(plan: Plan, kind: LayerKind, first: First, count: int) -> Written:
    """What a pass of ``count`` tokens a sequence writes to the cache of a layer of that kind."""
    length = held_positions(plan, kind)
    if first is None or plan.axes.positions or plan.pages is not None:
        return All()
    every, first = length == plan.cache_len - plan.prefill.prefix, first - plan.prefill.prefix
    if isinstance(first, int):
        if every:
            return InARow(first, count)
        return InARow(first % length, count) if count == 1 else All()
    return OfRows(tuple(_by_row(plan, first).tolist()), count) if every else All()


def _by_row(plan: Plan, first: NDArray[np.int32]) -> NDArray[np.int32]:
    """Of each row of the cache, that of its sequence: sequences are several rows where slots are folded into them."""
    if not folds_slots(plan):
        return first
    sequences, heads = plan.axes.size(plan.axes.sequence), plan.axes.size(plan.axes.head)
    of_chip = np.repeat(first.reshape(sequences, 1, -1), heads, axis=1)
    return np.repeat(of_chip, len(kv_slots(plan)[0][0]), axis=2).ravel()


@dataclass(frozen=True, slots=True)
class Whole:
    """All of it, with a shared prefix."""

    def cut(self, cache: Cache) -> Cache:
        """See :class:`Written`."""
        return cache

    def put(self, part: Cache, held: Cache) -> Cache:
        """See :class:`Written`."""
        moved: Cache = in_host_memory(part)
        for name in part:
            held[name].delete()
        return {**held, **moved}


@dataclass(frozen=True, slots=True)
class All(Whole):
    """All of it but a shared prefix, which is there."""

    def cut(self, cache: Cache) -> Cache:
        """See :class:`Written`."""
        return _own(cache)


@dataclass(frozen=True, slots=True)
class InARow:
    """``count`` positions from ``first`` on, the same in all rows."""

    first: int
    count: int

    def cut(self, cache: Cache) -> Cache:
        """See :class:`Written`."""
        return _cut(_slicer, cache, self.count, np.int32(self.first))

    def put(self, part: Cache, held: Cache) -> Cache:
        """See :class:`Written`."""
        for to, new, _ in _shards(part, held):
            to[:, :, :, self.first : self.first + self.count] = new
        return held


@dataclass(frozen=True, slots=True)
class OfRows:
    """``count`` positions of each row, from its own of ``starts`` on."""

    starts: tuple[int, ...]
    count: int

    def cut(self, cache: Cache) -> Cache:
        """See :class:`Written`."""
        return _cut(_row_slicer, cache, self.count, np.asarray(self.starts, np.int32))

    def put(self, part: Cache, held: Cache) -> Cache:
        """See :class:`Written`."""
        for to, new, rows in _shards(part, held):
            for row, start in enumerate(self.starts[rows]):
                to[:, row, :, start : start + self.count] = new[:, row]
        return held


def _own(cache: Cache) -> Cache:
    """What sequences have for themselves."""
    return {name: each for name, each in cache.items() if not name.startswith(PREFIX)}


def _cut(slicer: Any, cache: Cache, count: int, start: Any) -> Cache:
    cache = _own(cache)
    placed = tuple(each.sharding for each in cache.values())
    return dict(zip(cache, slicer(count, placed)(tuple(cache.values()), start), strict=True))


@functools.cache
def _slicer(count: int, placed: tuple[NamedSharding, ...]) -> Any:
    """The program that cuts arrays of such shardings, jitted once."""

    def cut(arrays: tuple[Any, ...], first: Any) -> tuple[Any, ...]:
        return tuple(lax.dynamic_slice_in_dim(each, first, count, axis=POSITIONS) for each in arrays)

    return jax.jit(cut, out_shardings=placed)


@functools.cache
def _row_slicer(count: int, placed: tuple[NamedSharding, ...]) -> Any:
    """Likewise each row from a start of its own; a device cuts its rows."""
    specs, rows = tuple(each.spec for each in placed), P(placed[0].spec[ROWS])

    def of_row(row: Any, start: Any) -> Any:
        return lax.dynamic_slice_in_dim(row, start, count, axis=POSITIONS - 1)

    def cut(arrays: tuple[Any, ...], starts: Any) -> tuple[Any, ...]:
        return tuple(jax.vmap(of_row, in_axes=(ROWS, 0), out_axes=ROWS)(each, starts) for each in arrays)

    mapped = jax.shard_map(cut, mesh=placed[0].mesh, in_specs=(specs, rows), out_specs=specs, check_vma=False)
    return jax.jit(mapped)


def _shards(part: Cache, held: Cache) -> Any:
    """Of each shard of each array: its host memory, the new values, and which rows of the whole it has."""
    for name, each in part.items():
        for to, new in zip(held[name].addressable_shards, each.addressable_shards, strict=True):
            assert to.index[:POSITIONS] == new.index[:POSITIONS]
            yield _memory_of(to.data), np.asarray(new.data), to.index[ROWS]


def _memory_of(shard: jax.Array) -> NDArray[Any]:
    """A shard's own host memory as numpy: JAX has no write into a part of an array there, only new arrays.

    Nothing else may read the array meanwhile.
    """
    memory = (ctypes.c_char * shard.nbytes).from_address(shard.unsafe_buffer_pointer())
    values: NDArray[Any] = np.frombuffer(memoryview(memory), np.uint8)
    return values.view(shard.dtype).reshape(shard.shape)
