"""A rank's keys and values: on the device, or in host memory, from where a layer's come when it is its turn.

In host memory a place (a position of all sequences of a micro-batch, or of one packed sequence) is a row of bytes, so
that what is cached by then is one range, and what a step adds another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from threading import Event
from typing import Protocol

import torch
from torch import Tensor

from engines.core.layer_kind import LayerKind
from engines.offload.events import Log
from engines.offload.pipeline import BUFFERS
from engines.offload.write_behind import WriteBehind
from engines.torch.attention import Cache
from engines.torch.offload.form import aligned, pinned
from engines.torch.sequences import Equal

Index = tuple[slice | Tensor, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One layer in one pass: of the prompt (``number`` None) or of a step, for the sequences ``rows``."""

    index: int
    number: int | None
    rows: slice
    layer: int


class KeysAndValues(Protocol):
    """Where the cache of the layers waits."""

    device_bytes: int
    copied_bytes: int
    """Bytes that came from the host since :meth:`writing` was entered."""

    def writing(self, log: Log) -> AbstractContextManager[None]:
        """Within it turns run; at its end all that they left is where it waits."""
        ...

    def reserve(self, turn: Turn) -> Event | None:
        """Wait until what the turn reads is where it waits."""
        ...

    def arrived(self, turn: Turn) -> Cache:
        """The layer's on the device; of turns in a row :data:`BUFFERS` are valid."""
        ...

    def left(self, turn: Turn, cache: Cache) -> Callable[[], int] | None:
        """What takes back what the turn wrote, once the device has computed it; ``cache`` may be overwritten before."""
        ...

    def put(self, turn: Turn, reserved: Event | None, write: Callable[[], int] | None) -> None:
        """Have ``write`` run, once the device has computed the turn."""
        ...

    def told(self) -> dict[str, int]:
        """What a row keeps beside the log: of the bytes that were copied, those of the cache."""
        ...


class CacheOnDevice:
    """Nothing waits."""

    copied_bytes = 0

    def __init__(self, sequences: Equal, layers: Sequence[Cache]) -> None:
        self.sequences, self.layers = sequences, layers
        self.device_bytes = sum(each.nbytes for layer in layers for each in layer)

    def writing(self, _log: Log) -> AbstractContextManager[None]:
        """See :class:`KeysAndValues`."""
        return nullcontext()

    def reserve(self, _turn: Turn) -> None:
        """See :class:`KeysAndValues`."""

    def arrived(self, turn: Turn) -> Cache:
        """See :class:`KeysAndValues`."""
        return self.sequences.cache([self.layers[turn.layer]], turn.rows)[0]

    def left(self, _turn: Turn, _cache: Cache) -> None:
        """See :class:`KeysAndValues`."""

    def put(self, _turn: Turn, _reserved: Event | None, _write: Callable[[], int] | None) -> None:
        """See :class:`KeysAndValues`."""

    def told(self) -> dict[str, int]:
        """See :class:`KeysAndValues`."""
        return {}


class WaitingCache:
    """Those in host memory, of which :data:`BUFFERS` layers are on the device."""

    def __init__(
        self,
        sequences: Equal,
        kinds: Sequence[LayerKind],
        micro_batches: Sequence[slice],
        shapes: Callable[[LayerKind, slice], Sequence[Sequence[int]]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """``shapes``: [batch, kv_heads, length, dim] of each tensor that a layer of a kind keeps of a micro-batch."""
        self.sequences, self.kinds, self.dtype = sequences, kinds, dtype
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.host: dict[tuple[int, int], list[Tensor]] = {}
        for rows in micro_batches:
            for layer, kind in enumerate(kinds):
                made = [
                    torch.zeros(length, batch, heads, dim, dtype=dtype)
                    for batch, heads, length, dim in shapes(kind, rows)
                ]
                self.host[rows.start, layer] = [pinned(each, device) for each in made]
        room = max(sum(aligned(each.nbytes) for each in waiting) for waiting in self.host.values())
        # Zeros: a place that is read under a mask takes no weight, but its value must be a number.
        self.rooms = [torch.zeros(room, dtype=torch.uint8, device=device) for _ in range(BUFFERS)]
        self.device_bytes = BUFFERS * room
        self.copied_bytes = 0
        self.writer: WriteBehind | None = None

    @contextmanager
    def writing(self, log: Log) -> Iterator[None]:
        """See :class:`KeysAndValues`."""
        self.copied_bytes, self.writer = 0, WriteBehind(log)
        try:
            yield
        finally:
            self.writer.close()

    def reserve(self, turn: Turn) -> Event | None:
        """See :class:`KeysAndValues`."""
        return None if self.writer is None else self.writer.reserve((turn.rows.start, turn.layer))

    def arrived(self, turn: Turn) -> Cache:
        """See :class:`KeysAndValues`."""
        room, made, at = self.rooms[turn.index % BUFFERS], [], 0
        parts: list[slice] = []
        if turn.number is not None:
            parts = self.sequences.filled(self.kinds[turn.layer], turn.rows, turn.number)
        for waiting in self.host[turn.rows.start, turn.layer]:
            own = room[at : at + waiting.nbytes].view(self.dtype).view(waiting.shape)
            for part in parts:
                own[part].copy_(waiting[part], non_blocking=True)
                self.copied_bytes += waiting[part].nbytes
            made.append(own.permute(1, 2, 0, 3))
            at += aligned(waiting.nbytes)
        return tuple(made)

    def left(self, turn: Turn, cache: Cache) -> Callable[[], int]:
        """See :class:`KeysAndValues`."""
        index: Index = self.sequences.written(self.kinds[turn.layer], turn.rows, turn.number)
        news = [each.permute(2, 0, 1, 3)[index].clone() for each in cache]
        host = self.host[turn.rows.start, turn.layer]

        def write() -> int:
            with torch.inference_mode(), torch.cuda.stream(self.stream) if self.stream else nullcontext():
                for waiting, new in zip(host, news, strict=True):
                    if isinstance(index[0], slice):
                        waiting[index].copy_(new, non_blocking=True)
                    else:
                        waiting[index] = new.cpu()
            if self.stream is not None:
                self.stream.synchronize()
            return sum(each.nbytes for each in news)

        return write

    def put(self, turn: Turn, reserved: Event | None, write: Callable[[], int] | None) -> None:
        """See :class:`KeysAndValues`."""
        if self.writer is not None and reserved is not None and write is not None:
            self.writer.put(reserved, turn.layer, write)

    def told(self) -> dict[str, int]:
        """See :class:`KeysAndValues`."""
        return {"cache_copy_bytes": self.copied_bytes}
