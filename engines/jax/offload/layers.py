"""One layer's arrays outside the device: in pinned host memory, or as bytes in a file."""

import mmap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import jax
import numpy as np
from jax.experimental.layout import Format
from jax.sharding import NamedSharding, SingleDeviceSharding
from numpy.typing import NDArray

from engines.offload.events import Log
from engines.offload.layer_file import LayerFile
from engines.offload.pipeline import BUFFERS
from engines.offload.read_ahead import ReadAhead, Staged

ALIGNED_BYTES: Final = 64
"""JAX on a CPU reads a numpy array where it lies if it begins at a multiple of this many bytes, and copies others."""


class Arrived(NamedTuple):
    """Arrays that are on the devices now, since when they were on their way, and the bytes that were sent."""

    arrays: Any
    start_s: float
    sent_bytes: int


Fetch = Callable[[int], Arrived]
"""Layer → its parameters, once they have arrived."""


class Layers(Protocol):
    """Where the layers wait."""

    @property
    def first(self) -> Sequence[Any]:
        """The parameters of those first layers that stay on the devices."""
        ...

    @property
    def copies(self) -> int:
        """How many more of a layer are on the devices while it arrives."""
        ...

    def opened(self, order: Sequence[int], log: Log) -> AbstractContextManager[Fetch]:
        """What fetches the layers of ``order``, in that order, and logs what it reads."""
        ...

    def close(self) -> None:
        """Free the memory that they take."""
        ...


class ResidentLayers:
    """Layers that are on the devices, where their caches alone come and go."""

    copies = 0

    def __init__(self, layers: Sequence[Any]) -> None:
        self.first: Sequence[Any] = layers

    def opened(self, order: Sequence[int], log: Log) -> AbstractContextManager[Fetch]:
        """See :class:`Layers`."""
        del order, log
        return nullcontext(lambda layer: Arrived(self.first[layer], time.perf_counter(), 0))

    def close(self) -> None:
        """See :class:`Layers`."""
        for each in jax.tree.leaves(self.first):
            each.delete()
        self.first = ()


class FirstStay:
    """Layers of which the first stay on the devices: those that a model proposes its own next tokens with."""

    def __init__(self, first: Sequence[Any], others: Layers) -> None:
        """``others`` bring the layers behind them, by the numbers of the whole model."""
        self.first: Sequence[Any] = first
        self.others, self.copies = others, others.copies

    def opened(self, order: Sequence[int], log: Log) -> AbstractContextManager[Fetch]:
        """See :class:`Layers`."""
        return self.others.opened(order, log)

    def close(self) -> None:
        """See :class:`Layers`."""
        ResidentLayers(self.first).close()
        self.first = ()
        self.others.close()


class HostLayers:
    """Layers in host memory, pinned where the platform has it, from which a device copies by itself."""

    copies, first = 0, ()

    def __init__(self, layers: Sequence[Any], placed: Sequence[Any]) -> None:
        """``layers`` are pytrees of arrays in host memory, ``placed`` the shapes and shardings on the devices."""
        self.layers, self.placed = list(layers), placed

    def opened(self, order: Sequence[int], log: Log) -> AbstractContextManager[Fetch]:
        """See :class:`Layers`."""
        del order, log
        return nullcontext(lambda layer: arrived(lambda: on_devices(self.layers[layer], self.placed[layer])))

    def close(self) -> None:
        """See :class:`Layers`."""
        for each in jax.tree.leaves(self.layers):
            each.delete()
        self.layers = []


def on_devices(arrays: Any, placed: Any) -> Any:
    """The arrays of a pytree where ``placed``, their shapes and shardings, says."""
    return jax.tree.map(lambda each, to: _moved(each, _target(to)), arrays, placed)


def in_host_memory(arrays: Any) -> Any:
    """The arrays of a pytree in host memory, split over the same devices."""

    def moved(each: jax.Array) -> jax.Array:
        device: Any = next(iter(each.sharding.addressable_devices))
        kinds = {memory.kind for memory in device.addressable_memories()}
        kind = "pinned_host" if "pinned_host" in kinds else "unpinned_host"
        return _moved(each, each.sharding.with_memory_kind(kind))

    return jax.block_until_ready(jax.tree.map(moved, arrays))


def _moved(array: jax.Array, target: Any, *, donate: bool = False) -> jax.Array:
    """The array in other memory of its devices.

    Of several processes each moves its own shards: a thread that moves whole arrays would have to be in step with the
    others'.
    """
    if array.is_fully_addressable:
        made: jax.Array = jax.device_put(array, target, donate=donate)
        return made
    sharding: Any = target.sharding if isinstance(target, Format) else target

    def placed(device: Any) -> Any:
        alone = SingleDeviceSharding(device, memory_kind=sharding.memory_kind)
        return Format(target.layout, alone) if isinstance(target, Format) else alone

    parts = [jax.device_put(each.data, placed(each.device)) for each in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, sharding, parts)


@dataclass(frozen=True, slots=True)
class FileLayers:
    """Layers in a file, each array as its different shards one after another (:func:`shards_of`)."""

    file: LayerFile
    placed: Sequence[Any]
    on_close: Callable[[], None]
    copies: int = 0
    first: Sequence[Any] = ()

    def opened(self, order: Sequence[int], log: Log) -> AbstractContextManager[Fetch]:
        """See :class:`Layers`. A layer is read, and then copied: both run ahead of the computation."""
        return _FileFetch(ReadAhead(self.file, order, log), self.placed)

    def close(self) -> None:
        """See :class:`Layers`."""
        self.on_close()


class _FileFetch:
    """Copies each layer that has been read to the devices.

    A CPU's device memory is the host's, and JAX reads an aligned numpy array where it lies: two rooms, of which the
    pipeline fills one once its layer is done with, are then what two buffers are on an accelerator. New memory for
    every layer would cost more in page faults than the copy.
    """

    def __init__(self, reader: ReadAhead, placed: Sequence[Any]) -> None:
        self.reader, self.placed, self.turn = reader, placed, 0
        first = next(iter(jax.tree.leaves(placed[0])[0].sharding.addressable_devices))
        size = max(_room_bytes(jax.tree.leaves(each)) for each in placed)
        rooms = BUFFERS if first.platform == "cpu" else 0
        self.rooms = [np.frombuffer(mmap.mmap(-1, size), np.uint8) for _ in range(rooms)]

    def __enter__(self) -> Fetch:
        return self.fetch

    def __exit__(self, *_: object) -> None:
        self.reader.close()

    def fetch(self, layer: int) -> Arrived:
        staged = self.reader.take(layer)
        room = self.rooms[self.turn % BUFFERS] if self.rooms else None
        self.turn += 1
        try:
            return arrived(lambda: _placed(staged, self.placed[layer], room))
        finally:
            self.reader.release(staged)


def shards_of(array: jax.Array) -> list[NDArray[Any]]:
    """The different shards of this process, in the order of its devices: what is replicated is there once."""
    found: dict[Any, NDArray[Any]] = {}
    for shard in sorted(array.addressable_shards, key=lambda each: each.device.id):
        if (key := _key(shard.index, array.shape)) not in found:
            found[key] = np.asarray(shard.data)
    return list(found.values())


def _placed(staged: Staged, placed: Any, room: NDArray[np.uint8] | None) -> Any:
    """The pytree of a layer on the devices, from its bytes; copied to ``room`` first where there is one."""
    shapes, structure = jax.tree.flatten(placed)
    parts = _cut(np.frombuffer(staged.payload, np.uint8), shapes, room)
    return jax.tree.unflatten(structure, [_assembled(each, parts) for each in shapes])


def _cut(payload: NDArray[np.uint8], shapes: Sequence[Any], room: NDArray[np.uint8] | None) -> Iterator[NDArray[Any]]:
    """The shards of all arrays, as :func:`shards_of` wrote them."""
    offset = placed_at = 0
    for local, dtype, count in _parts(shapes):
        size = int(np.prod(local)) * dtype.itemsize
        for _ in range(count):
            part = payload[offset : offset + size]
            if room is not None:
                np.copyto(room[placed_at : placed_at + size], part)
                part = room[placed_at : placed_at + size]
                placed_at += _aligned(size)
            offset += size
            yield part.view(dtype).reshape(local)
    assert offset == len(payload), "a layer's bytes are those of its arrays"


def _parts(shapes: Sequence[Any]) -> Iterator[tuple[tuple[int, ...], np.dtype[Any], int]]:
    """Of each array a shard's shape and dtype, and how many different ones there are."""
    for each in shapes:
        sharding = _sharding(each)
        indices = sharding.addressable_devices_indices_map(each.shape).values()
        yield sharding.shard_shape(each.shape), np.dtype(each.dtype), len({_key(at, each.shape) for at in indices})


def _room_bytes(shapes: Sequence[Any]) -> int:
    """Bytes of a layer's arrays, each aligned as JAX needs it to read it in place."""
    return sum(count * _aligned(int(np.prod(local)) * dtype.itemsize) for local, dtype, count in _parts(shapes))


def _aligned(size: int) -> int:
    return -(-size // ALIGNED_BYTES) * ALIGNED_BYTES


def _assembled(shape: jax.ShapeDtypeStruct, parts: Iterator[NDArray[Any]]) -> jax.Array:
    sharding, found, arrays = _sharding(shape), dict[Any, NDArray[Any]](), []
    indices: dict[Any, Any] = dict(sharding.addressable_devices_indices_map(shape.shape))
    for device in sorted(indices, key=lambda each: each.id):
        key = _key(indices[device], shape.shape)
        if key not in found:
            found[key] = next(parts)
        arrays.append(jax.device_put(found[key], device))
    made: jax.Array = jax.make_array_from_single_device_arrays(shape.shape, sharding, arrays)
    target = _target(shape)
    return made if target is sharding else _moved(made, target, donate=True)


def arrived(move: Callable[[], Any]) -> Arrived:
    """What ``move`` returns, once it is on the devices."""
    start_s = time.perf_counter()
    there = jax.block_until_ready(move())
    return Arrived(there, start_s, sent_bytes(there))


def sent_bytes(arrays: Any) -> int:
    """Bytes of all shards on all devices of this process: what a copy from the host sends them."""
    return sum(shard.data.nbytes for each in jax.tree.leaves(arrays) for shard in each.addressable_shards)


def _key(index: Any, shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple(at.indices(size)[:2] for at, size in zip(index, shape, strict=True))


def _target(shape: Any) -> Any:
    """Where an array goes: its sharding, with its memory layout where the plan chose one."""
    return shape.format if shape.format.layout is not None else shape.sharding


def _sharding(shape: Any) -> NamedSharding:
    found: NamedSharding = shape.sharding
    return found
