"""Layers read from a file ahead of their use, past the page cache where the file system allows it."""

import errno
import mmap
import os
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from engines.core.errors import ShardbenchError
from engines.offload.events import Log
from engines.offload.layer_file import LayerFile

CHUNK_BYTES: Final = 1 << 24
"""Bytes of one read call: large enough for a drive's full rate, small enough to end soon."""
STAGED: Final = 2
"""Layers in host memory at once: the one that is copied to the device, and the one that is read."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A layer that has been read: its bytes, valid until :meth:`ReadAhead.release`."""

    layer: int
    payload: memoryview
    buffer: memoryview


class ReadAhead:
    """Reads the layers of ``order`` on a thread of its own into a few buffers, as soon as one is free.

    With O_DIRECT a drive writes into the buffers themselves and nothing stays in the page cache, so every read is one
    of the drive; ``direct`` says whether the file system has it. Without it each layer's pages are dropped once read.
    """

    def __init__(
        self, file: LayerFile, order: Sequence[int], log: Log, buffers: Sequence[memoryview] | None = None
    ) -> None:
        """``buffers`` are page-aligned, each as large as the largest layer; by default :data:`STAGED` are made."""
        self.file, self.log = file, log
        self.descriptor, self.direct = _opened(file)
        size = max((each.read_bytes for each in file.extents), default=0) or mmap.PAGESIZE
        self._free = queue.SimpleQueue[memoryview | None]()
        for each in buffers or [memoryview(mmap.mmap(-1, size)) for _ in range(STAGED)]:
            self._free.put(each)
        self._ready = queue.SimpleQueue[Staged | BaseException]()
        self._thread = threading.Thread(target=self._work, args=(list(order),), name="offload-read", daemon=True)
        self._thread.start()

    def take(self, layer: int) -> Staged:
        """The next layer of the order, which must be ``layer``, once it has been read.

        Raises:
            ShardbenchError: the file is shorter than its index says, or cannot be read.
        """
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        assert found.layer == layer, f"layer {layer} was asked for, and {found.layer} is next"
        return found

    def release(self, staged: Staged) -> None:
        """Give a layer's buffer back; its bytes are overwritten."""
        self._free.put(staged.buffer)

    def close(self) -> None:
        """End the thread and close the file."""
        self._free.put(None)
        self._thread.join()
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self, order: list[int]) -> None:
        try:
            for layer in order:
                buffer = self._free.get()
                if buffer is None:
                    return
                start_s, extent = time.perf_counter(), self.file.extents[layer]
                self._read(buffer, extent.offset, extent.read_bytes)
                self.log.add("read", layer, start_s, extent.read_bytes)
                self._ready.put(Staged(layer, buffer[: extent.payload_bytes], buffer))
        except BaseException as error:  # the taker's to raise
            self._ready.put(error)

    def _read(self, buffer: memoryview, offset: int, size: int) -> None:
        done = 0
        while done < size:
            got = os.preadv(self.descriptor, [buffer[done : min(size, done + CHUNK_BYTES)]], offset + done)
            if not got:
                raise ShardbenchError(f"{self.file.path}: ends before byte {offset + size}; delete it to rewrite it")
            done += got
        if not self.direct:
            os.posix_fadvise(self.descriptor, offset, size, os.POSIX_FADV_DONTNEED)


def _opened(file: LayerFile) -> tuple[int, bool]:
    """The file's descriptor, and whether its reads are direct."""
    if hasattr(os, "O_DIRECT"):
        try:
            return os.open(file.path, os.O_RDONLY | os.O_DIRECT), True
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system without direct I/O, such as tmpfs
                raise
    return os.open(file.path, os.O_RDONLY), False
