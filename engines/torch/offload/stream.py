"""A rank's layers one after another, each sent to the device while the one before computes.

On a GPU a copy stream of its own sends them; on a CPU, whose device memory is the host's, a thread copies them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from threading import Event
from time import perf_counter
from typing import Any, Final

import torch

from engines.offload.events import Log
from engines.offload.pipeline import fetched_ahead
from engines.torch.attention import Cache
from engines.torch.offload.cache import KeysAndValues, Turn
from engines.torch.offload.weights import Take, Weights
from engines.torch.parameters import LayerParameters
from engines.torch.peaks import wait_for

TOLD_LAYERS: Final = 12
"""A row keeps the times of so many layers, the last of its last run."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A turn whose layer is on the device."""

    turn: Turn
    parameters: LayerParameters
    cache: Cache
    reserved: Event | None


class StreamedLayers:
    """Implements :class:`engines.torch.layers.Layers`: two layers are on the device, of what waits elsewhere."""

    def __init__(
        self,
        weights: Weights,
        cache: KeysAndValues,
        count: int,
        micro_batches: Sequence[slice],
        device: torch.device,
    ) -> None:
        """``count`` layers, each for all micro-batches in turn."""
        self.weights, self.cache, self.count, self.micro_batches = weights, cache, count, micro_batches
        self.device, self.log, self.logs = device, Log(), dict[str, Any]()
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.passes: Iterator[tuple[int, Arrived]] = iter(())

    @property
    def weights_bytes(self) -> int:
        """See :class:`engines.torch.layers.Layers`."""
        return self.weights.device_bytes

    @property
    def cache_bytes(self) -> int:
        """See :class:`engines.torch.layers.Layers`."""
        return self.cache.device_bytes

    def of(self, _rows: slice) -> Iterator[tuple[LayerParameters, Cache]]:
        """Those of the next pass of :meth:`running`; the caller's work on one is awaited before its room is reused."""
        for _ in range(self.count):
            _, arrived = next(self.passes)
            yield arrived.parameters, arrived.cache
            write = self.cache.left(arrived.turn, arrived.cache)
            wait_for(self.device)
            self.cache.put(arrived.turn, arrived.reserved, write)

    @contextmanager
    def running(self, stage: str, numbers: Sequence[int | None]) -> Iterator[None]:
        """Passes of the prompt (None) and of steps in a row, whose events are those of ``stage``."""
        passes = [(number, rows) for number in numbers for rows in self.micro_batches]
        order = [layer for _ in passes for layer in range(self.count)]
        turns = (Turn(index, *passes[index // self.count], layer) for index, layer in enumerate(order))
        self.log.clear()
        with self.weights.reading(order, self.log) as take:
            run = fetched_ahead(order, self._fetch(take, turns), self.log)
            with closing(run), self.cache.writing(self.log):
                self.passes = run
                yield
                next(run, None)  # the last layer has been computed
        self.logs[stage] = {**self.log.summary(TOLD_LAYERS), **self.cache.told()}

    def close(self) -> None:
        """See :class:`engines.torch.layers.Layers`."""
        self.weights.close()

    def _fetch(self, take: Take, turns: Iterator[Turn]) -> Callable[[int], Arrived]:
        def fetch(layer: int) -> Arrived:
            turn = next(turns)
            reserved = self.cache.reserve(turn)
            with take(layer) as parts:
                start_s, before = perf_counter(), self.cache.copied_bytes
                with torch.inference_mode(), torch.cuda.stream(self.stream) if self.stream else nullcontext():
                    parameters, sent = self.weights.placed(layer, turn.index, parts)
                    cache = self.cache.arrived(turn)
                if self.stream is not None:
                    self.stream.synchronize()
                self.log.add("copy", layer, start_s, sent + self.cache.copied_bytes - before)
            return Arrived(turn, parameters, cache, reserved)

        return fetch
