"""Standard streams that never end a command: closed, left by their reader, on a full disk, short of characters."""

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import Any, Final

STREAMS: Final = ("stdin", "stdout", "stderr")
"""By their file descriptors 0, 1 and 2."""
STDOUT: Final = 1
READER_GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.EIO)
"""What a write ends with where nobody reads any more: a pipe, a socket, a terminal that was closed."""


class Printed:
    """What became of stdout. ``problem`` says why it could not be written, unless its reader just left.

    ``stores`` is for a command that also stores what it prints: it then says once, on stderr, that it goes on.
    """

    def __init__(self) -> None:
        self.stores = False
        self.problem: str | None = None

    def lost(self, descriptor: int, error: OSError) -> None:
        """Send all that follows nowhere. A command goes on: what it stores is worth as much as what it prints."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
        if descriptor != STDOUT:
            return  # there is nowhere left to say so
        if error.errno not in READER_GONE:
            self.problem = error.strerror
        if self.stores:
            reason = self.problem or "its reader has gone"
            print(f"shardbench: stdout: {reason}; nothing more is printed, the command goes on", file=sys.stderr)


class _StandardFile(io.FileIO):
    """A standard stream's file. Writing to it never fails."""

    def __init__(self, descriptor: int, printed: Printed) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._printed = printed

    def write(self, data: Any) -> int:
        """All of ``data`` is written or lost; returns its number of bytes."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            try:
                written = super().write(left)
            except OSError as error:
                self._printed.lost(self.fileno(), error)
                break
            if written is None:  # another process made the stream non-blocking, and its reader is slow
                select.select([], [self.fileno()], [])
            left = left[written or 0 :]
        return size


def prepare() -> Printed:
    """Make this process's standard streams such that printing never fails.

    A closed stream becomes the null device: the next file to be opened would otherwise take its place, and all that is
    printed. Characters that a stream's encoding lacks are printed as a question mark.
    """
    for descriptor, name in enumerate(STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number, which is this one
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    printed = Printed()
    for descriptor, name in enumerate(STREAMS[1:], start=STDOUT):
        stream = getattr(sys, name)
        with suppress(OSError, ValueError, AttributeError):  # not a file, as where a test reads what is printed
            if stream.fileno() == descriptor:
                file = io.BufferedWriter(_StandardFile(descriptor, printed))
                line_buffering = name == "stderr" or stream.isatty()
                text = io.TextIOWrapper(file, stream.encoding, "replace", line_buffering=line_buffering)
                text.reconfigure(write_through=stream.write_through)
                setattr(sys, name, text)
    return printed
