"""When layers were read, copied to the device and computed, and how many bytes that took."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["read", "copy", "compute", "write"]


@dataclass(frozen=True, slots=True)
class Event:
    """One layer's read (storage to host), copy (host to device), compute, or write (device to host).

    Seconds are those of ``time.perf_counter``; ``sent_bytes`` is what was moved, 0 of a compute.
    """

    kind: Kind
    layer: int
    start_s: float
    end_s: float
    sent_bytes: int = 0


@dataclass(slots=True)
class Log:
    """The events of one run, appended by several threads."""

    events: list[Event] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: Kind, layer: int, start_s: float, sent_bytes: int = 0) -> None:
        """Append an event that ends now."""
        event = Event(kind, layer, start_s, time.perf_counter(), sent_bytes)
        with self._lock:
            self.events.append(event)

    def clear(self) -> None:
        """Forget all events: a new run begins."""
        with self._lock:
            self.events.clear()

    def sent_bytes(self, kind: Kind) -> int:
        """Bytes of all events of a kind."""
        return sum(each.sent_bytes for each in self.of(kind))

    def of(self, kind: Kind) -> list[Event]:
        """The events of a kind, by their start."""
        return sorted((each for each in self.events if each.kind == kind), key=lambda each: each.start_s)

    def overlapped(self) -> int:
        """How many fetches (a layer's read, or its copy where none is read) began before the compute before ended."""
        computes, fetches = self.of("compute"), self.of("read") or self.of("copy")
        following = zip(computes, fetches[1:], strict=False)
        return sum(fetch.start_s < compute.end_s for compute, fetch in following)

    def summary(self, last: int) -> dict[str, Any]:
        """What a row keeps of a run: bytes, seconds of each kind, overlaps, and the last ``last`` layers' times.

        ``timeline`` is [kind, layer, start, end], in seconds after the first of them, rounded to microseconds.
        """
        kinds = sorted({each.kind for each in self.events})
        return {
            **{f"{kind}_bytes": self.sent_bytes(kind) for kind in kinds if kind != "compute"},
            **{f"{kind}_busy_s": sum(each.end_s - each.start_s for each in self.of(kind)) for kind in kinds},
            "fetches_overlapped": self.overlapped(),
            "fetches": len(self.of("read") or self.of("copy")),
            "timeline": self._timeline([each for kind in kinds for each in self.of(kind)[-last:]]),
        }

    @staticmethod
    def _timeline(events: Sequence[Event]) -> list[list[Any]]:
        start = min((each.start_s for each in events), default=0.0)
        return [
            [each.kind, each.layer, round(each.start_s - start, 6), round(each.end_s - start, 6)]
            for each in sorted(events, key=lambda each: each.start_s)
        ]
