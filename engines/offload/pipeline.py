"""Double buffering: the next layer is fetched by a thread of its own while the caller computes the present one."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Final, TypeVar

from engines.offload.events import Log

Fetched = TypeVar("Fetched")
BUFFERS: Final = 2
"""Layers on the device at once: the one that computes, and the one that arrives."""


def fetched_ahead(
    order: Sequence[int], fetch: Callable[[int], Fetched], log: Log, buffers: int = BUFFERS
) -> Generator[tuple[int, Fetched], None, None]:
    """(layer, what ``fetch`` returned for it) in ``order``, each fetched while the caller works on those before.

    A layer's buffer is free again when the caller asks for the next; the time between is logged as its compute, so the
    caller waits for its device before it asks. ``fetch`` runs on one thread, one layer at a time, and returns when the
    layer has arrived. With ``buffers`` = 2 the time of a pass is that of the first fetch and, for each layer,
    max(compute, fetch of the next). Closing the iterator ends the thread.

    Raises:
        Exception: what ``fetch`` raised, when the caller asks for that layer.
    """
    free, arrived = threading.Semaphore(buffers), queue.SimpleQueue[tuple[Fetched | None, BaseException | None]]()
    stopped = threading.Event()

    def work() -> None:
        for layer in order:
            free.acquire()
            if stopped.is_set():
                return
            try:
                arrived.put((fetch(layer), None))
            except BaseException as error:  # the caller's to raise
                arrived.put((None, error))
                return

    thread = threading.Thread(target=work, name="offload-fetch", daemon=True)
    thread.start()
    try:
        for layer in order:
            value, error = arrived.get()
            if error is not None:
                raise error
            start_s = time.perf_counter()
            try:
                yield layer, value  # type: ignore[misc]
            finally:  # the last layer too, after which the caller closes the iterator
                log.add("compute", layer, start_s)
            del value
            free.release()
    finally:
        stopped.set()
        free.release()
        thread.join()
