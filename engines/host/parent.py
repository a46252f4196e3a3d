"""Ends a process with the one that started it."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def end_at_end_of_stdin(received: Callable[[bytes], None] | None = None) -> None:
    """End this process, and all that it started in its process group, once stdin is at its end.

    The parent holds the other end, so that means that it has ended, even by ``kill -9``. A process that leads no group
    of its own ends alone. ``received`` is called, in another thread, with each byte that the parent sends; those that
    ``sys.stdin`` has read ahead are not among them.
    """
    # Not ``sys.stdin`` itself: an interpreter that ends waits for a second to lock what this thread is reading.
    descriptor = sys.stdin.fileno()

    def watch() -> None:
        while byte := os.read(descriptor, 1):
            if received is not None:
                received(byte)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_with_parent() -> None:
    """End this process when its parent does; on Linux, even while it is inside a C library that lets no thread run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
