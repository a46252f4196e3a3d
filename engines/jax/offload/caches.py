"""Where the layers' caches wait: on the devices, or in host memory, from which each comes with its layer."""

import ctypes
import functools
import time
from collections.abc import Sequence
from threading import Event
from typing import Any, Protocol

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh
from numpy.typing import NDArray

from engines.jax.offload.layers import Arrived, arrived, in_host_memory, on_devices, sent_bytes
from engines.offload.events import Log
from engines.offload.write_behind import WriteBehind
from engines.transformer.layers.kv_cache import Cache, Caches, abstract_cache, empty_arrays, held_positions
from engines.transformer.partition.plan import Plan

POSITIONS = 3
"""The dimension of positions of every array of a cache."""


class Coming(Protocol):
    """The caches of one run, which come and go with their layers."""

    def fetch(self, layer: int) -> Arrived:
        """A layer's cache on the devices. Asked by the thread that fetches."""
        ...

    def computed(self, layer: int, cache: Cache, first: int | None, count: int) -> None:
        """``cache`` is the layer's now; new are ``count`` positions from ``first`` on, anywhere where it is None."""
        ...

    def settle(self) -> None:
        """Wait until everything is where it waits."""
        ...

    def held(self) -> Caches:
        """Those on the devices behind the run."""
        ...


class HeldCaches:
    """Implements :class:`Coming` where all caches are on the devices."""

    def __init__(self, caches: Sequence[Cache]) -> None:
        self.caches = list(caches)

    def fetch(self, layer: int) -> Arrived:
        """See :class:`Coming`."""
        return Arrived(self.caches[layer], time.perf_counter(), 0)

    def computed(self, layer: int, cache: Cache, first: int | None, count: int) -> None:
        """See :class:`Coming`."""
        del first, count
        self.caches[layer] = cache

    def settle(self) -> None:
        """See :class:`Coming`."""

    def held(self) -> Caches:
        """See :class:`Coming`."""
        return tuple(self.caches)


class HostCaches:
    """Caches in host memory, pinned where the platform has it, of the same shards as on the devices.

    ``copied_bytes`` are those that the last run sent to the devices.
    """

    def __init__(self, plan: Plan, mesh: Mesh) -> None:
        self.plan, self.copied_bytes = plan, 0
        self.placed = abstract_cache(plan, mesh)
        self.layers = [_emptied(each) for each in self.placed]

    def coming(self, log: Log, *, fresh: bool) -> Coming:
        """What brings caches and takes them back in one run. ``fresh``: the run reads nothing that they hold before."""
        self.copied_bytes = 0
        return _ComingFromHost(self, WriteBehind(log), fresh)

    def written_from(self, layer: int, first: int | None, count: int) -> int | None:
        """The first of the ``count`` slots that are written from the position ``first`` on, where they are in a row."""
        length = held_positions(self.plan, self.plan.stacks[layer].kind)
        if first is None or self.plan.axes.positions:
            return None
        if length == self.plan.cache_len:
            return first
        return first % length if count == 1 else None

    def write(self, layer: int, part: Cache, first: int | None) -> None:
        """Put a part of a layer's cache from the slot ``first`` on, or all of it."""
        if first is None:
            old, self.layers[layer] = self.layers[layer], in_host_memory(part)
            for each in jax.tree.leaves(old):
                each.delete()
            return
        for name, each in part.items():
            for to, new in zip(self.layers[layer][name].addressable_shards, each.addressable_shards, strict=True):
                assert to.index[:POSITIONS] == new.index[:POSITIONS]
                values = np.asarray(new.data)
                _memory_of(to.data)[:, :, :, first : first + values.shape[POSITIONS]] = values

    def close(self) -> None:
        """Free the memory that they take."""
        for each in jax.tree.leaves(self.layers):
            each.delete()
        self.layers = []


class _ComingFromHost:
    """Implements :class:`Coming`: the thread that fetches is ahead, and another takes back what was written."""

    def __init__(self, caches: HostCaches, writer: WriteBehind, fresh: bool) -> None:
        self.caches, self.writer, self.fresh = caches, writer, fresh
        self.reserved: dict[int, Event] = {}
        self.rooms: list[tuple[Any, Cache]] = []

    def fetch(self, layer: int) -> Arrived:
        """See :class:`Coming`. A whole prompt reads no cache: it is given room alone, that of a layer before."""
        placed = self.caches.placed[layer]
        self.reserved[layer] = self.writer.reserve(layer)
        if not self.fresh:
            there = arrived(lambda: on_devices(self.caches.layers[layer], placed))
            self.caches.copied_bytes += there.sent_bytes
            return there
        room = next((each for each in self.rooms if each[0] == _shape(placed)), None)
        if room is None:
            return Arrived(empty_arrays(placed), time.perf_counter(), 0)
        self.rooms.remove(room)
        return Arrived(room[1], time.perf_counter(), 0)

    def computed(self, layer: int, cache: Cache, first: int | None, count: int) -> None:
        """See :class:`Coming`."""
        at = self.caches.written_from(layer, first, count)
        part = jax.block_until_ready(cache if at is None else _part(cache, at, count))
        self.writer.put(self.reserved.pop(layer), layer, lambda: self._write(layer, cache, part, at))

    def settle(self) -> None:
        """See :class:`Coming`."""
        self.writer.close()
        for _, cache in self.rooms:
            _deleted(cache)

    def held(self) -> Caches:
        """See :class:`Coming`."""
        return ()

    def _write(self, layer: int, cache: Cache, part: Cache, first: int | None) -> int:
        sent = sent_bytes(part)
        self.caches.write(layer, part, first)
        if self.fresh:
            self.rooms.append((_shape(self.caches.placed[layer]), cache))
        else:
            _deleted(cache)
        return sent


def _part(cache: Cache, first: int, count: int) -> Cache:
    """``count`` positions of every array, split over the devices as the arrays are."""
    placed = tuple(each.sharding for each in cache.values())
    cut = _cutter(count, placed)(tuple(cache.values()), np.int32(first))
    return dict(zip(cache, cut, strict=True))


@functools.cache
def _cutter(count: int, placed: tuple[Any, ...]) -> Any:
    """The program that cuts arrays of such shardings, jitted once."""
    return jax.jit(functools.partial(_cut, count=count), out_shardings=placed)


def _cut(arrays: tuple[Any, ...], first: Any, *, count: int) -> tuple[Any, ...]:
    return tuple(lax.dynamic_slice_in_dim(each, first, count, axis=POSITIONS) for each in arrays)


def _emptied(placed: Any) -> Cache:
    made = empty_arrays(placed)
    moved: Cache = in_host_memory(made)
    _deleted(made)
    return moved


def _deleted(arrays: Any) -> None:
    for each in jax.tree.leaves(arrays):
        each.delete()


def _shape(placed: Any) -> Any:
    return tuple((name, each.shape) for name, each in placed.items())


def _memory_of(shard: jax.Array) -> NDArray[Any]:
    """A shard's own host memory as numpy: JAX has no write into a part of an array there, only new arrays.

    Nothing else reads the array meanwhile: see :class:`_ComingFromHost`.
    """
    memory = (ctypes.c_char * shard.nbytes).from_address(shard.unsafe_buffer_pointer())
    return np.frombuffer(memory, np.uint8).view(shard.dtype).reshape(shard.shape)
