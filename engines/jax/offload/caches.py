"""Where the layers' caches wait: on the devices, or in host memory, from which each comes with its layer."""

import time
from collections.abc import Sequence
from threading import Event
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from engines.jax.offload.layers import Arrived, arrived, in_host_memory, on_devices, sent_bytes
from engines.jax.offload.written import First, Whole, Written, written_by
from engines.offload.events import Log
from engines.offload.write_behind import WriteBehind
from engines.transformer.layers.kv_cache import Cache, Caches, abstract_cache, empty_arrays
from engines.transformer.partition.plan import Plan


class Coming(Protocol):
    """The caches of one run, which come and go with their layers."""

    def fetch(self, layer: int) -> Arrived:
        """A layer's cache on the devices. Asked by the thread that fetches."""
        ...

    def computed(self, layer: int, cache: Cache, first: First, count: int, *, whole: bool = False) -> None:
        """``cache`` is the layer's now; new are ``count`` positions from ``first`` on, or the ``whole`` of it."""
        ...

    def settle(self) -> None:
        """Wait until everything is where it waits."""
        ...

    def held(self) -> Caches:
        """Those on the devices."""
        ...

    def hold(self, first: Caches) -> None:
        """Take those of the first layers, which something else has written."""
        ...


class HeldCaches:
    """Implements :class:`Coming` where all caches are on the devices."""

    def __init__(self, caches: Sequence[Cache]) -> None:
        self.caches = list(caches)

    def fetch(self, layer: int) -> Arrived:
        """See :class:`Coming`."""
        return Arrived(self.caches[layer], time.perf_counter(), 0)

    def computed(self, layer: int, cache: Cache, first: First, count: int, *, whole: bool = False) -> None:
        """See :class:`Coming`."""
        del first, count, whole
        self.caches[layer] = cache

    def settle(self) -> None:
        """See :class:`Coming`."""

    def held(self) -> Caches:
        """See :class:`Coming`."""
        return tuple(self.caches)

    def hold(self, first: Caches) -> None:
        """See :class:`Coming`."""
        self.caches[: len(first)] = first


class HostCaches:
    """Caches in host memory, pinned where the platform has it, of the same shards as on the devices.

    ``copied_bytes`` are those that the last run sent to the devices.
    """

    def __init__(self, plan: Plan, mesh: Mesh, first: int = 0) -> None:
        """Those of the ``first`` layers stay on the devices."""
        self.plan, self.copied_bytes = plan, 0
        self.placed = abstract_cache(plan, mesh)
        self.layers: list[Cache] = [{} if number < first else _emptied(each) for number, each in enumerate(self.placed)]

    def coming(self, log: Log, held: Caches, *, fresh: bool) -> Coming:
        """What brings caches and takes them back in one run. ``fresh``: the run reads nothing that they hold before.

        ``held`` are those of the first layers.
        """
        self.copied_bytes = 0
        return _ComingFromHost(self, WriteBehind(log), HeldCaches(held), fresh)

    def close(self) -> None:
        """Free the memory that they take."""
        for each in jax.tree.leaves(self.layers):
            each.delete()
        self.layers = []


class _ComingFromHost:
    """Implements :class:`Coming`: the thread that fetches is ahead, and another takes back what was written.

    The first layers' caches, ``here``, are on the devices.
    """

    def __init__(self, caches: HostCaches, writer: WriteBehind, here: HeldCaches, fresh: bool) -> None:
        self.caches, self.writer, self.here, self.fresh = caches, writer, here, fresh
        self.reserved: dict[int, Event] = {}
        self.rooms: list[tuple[Any, Cache]] = []

    def fetch(self, layer: int) -> Arrived:
        """See :class:`Coming`. A whole prompt reads no cache: it is given room alone, that of a layer before."""
        if layer < len(self.here.caches):
            return self.here.fetch(layer)
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

    def computed(self, layer: int, cache: Cache, first: First, count: int, *, whole: bool = False) -> None:
        """See :class:`Coming`."""
        if layer < len(self.here.caches):
            self.here.computed(layer, cache, first, count)
            return
        plan = self.caches.plan
        written: Written = Whole() if whole else written_by(plan, plan.stacks[layer].kind, first, count)
        part = jax.block_until_ready(written.cut(cache))
        self.writer.put(self.reserved.pop(layer), layer, lambda: self._write(layer, cache, part, written))

    def settle(self) -> None:
        """See :class:`Coming`."""
        self.writer.close()
        for _, cache in self.rooms:
            _deleted(cache)

    def held(self) -> Caches:
        """See :class:`Coming`."""
        return self.here.held()

    def hold(self, first: Caches) -> None:
        """See :class:`Coming`."""
        self.here.hold(first)

    def _write(self, layer: int, cache: Cache, part: Cache, written: Written) -> int:
        sent = sent_bytes(part)
        layers = self.caches.layers
        layers[layer] = written.put(part, layers[layer])
        if self.fresh:
            self.rooms.append((_shape(self.caches.placed[layer]), cache))
        else:
            _deleted(cache)
        return sent


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
