"""What computations left on a device, taken back by a thread of its own while the next ones run."""

import queue
import threading
import time
from collections.abc import Callable, Hashable
from typing import Final

from engines.offload.events import Log

WAITING: Final = 2
"""Writes that may wait: as many copies of new values are on the device at most, beside the one that is written."""


class WriteBehind:
    """Writes in the order in which they are given. A place that is to be written is read no sooner.

    A reader calls :meth:`reserve` for its place, which waits until the reservation before it was written, and its
    computation then gives :meth:`put` what it left there: so a reader that is ahead of the computation never sees a
    value too old.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self._last: dict[Hashable, threading.Event] = {}
        self._outstanding = set[threading.Event]()
        self._lock, self._ended, self._error = threading.Lock(), False, list[BaseException]()
        self._free = threading.Semaphore(WAITING)
        self._queue = queue.SimpleQueue[tuple[threading.Event, int, Callable[[], int]] | None]()
        self._thread = threading.Thread(target=self._work, name="offload-write", daemon=True)
        self._thread.start()

    def reserve(self, place: Hashable) -> threading.Event:
        """Wait for what is on its way to ``place``; the caller's computation gives the next, under what is returned.

        Raises:
            Exception: what a write raised.
        """
        with self._lock:
            before, mine = self._last.get(place), threading.Event()
            self._last[place] = mine
            if self._ended:
                mine.set()
            else:
                self._outstanding.add(mine)
        if before is not None:
            before.wait()
        self._raise()
        return mine

    def put(self, reserved: threading.Event, layer: int, write: Callable[[], int]) -> None:
        """Have ``write`` run, which returns the bytes that it moved; waits where :data:`WAITING` others do.

        Raises:
            Exception: what an earlier write raised.
        """
        self._free.acquire()
        self._raise()
        self._queue.put((reserved, layer, write))

    def close(self) -> None:
        """End the thread once all that was put is written; readers that wait for what will not come go on.

        Raises:
            Exception: what a write raised.
        """
        self._queue.put(None)
        self._thread.join()
        with self._lock:
            self._ended = True
            for each in self._outstanding:
                each.set()
        self._raise()

    def _raise(self) -> None:
        if self._error:
            raise self._error[0]

    def _work(self) -> None:
        while (given := self._queue.get()) is not None:
            written, layer, write = given
            try:
                if not self._error:
                    start_s = time.perf_counter()
                    self.log.add("write", layer, start_s, write())
            except BaseException as error:  # the next caller's to raise
                self._error.append(error)
            finally:
                with self._lock:
                    self._outstanding.discard(written)
                written.set()
                self._free.release()
