"""Memory that a worker of the suite leaves to the others."""

import ctypes
import gc
import os
import sys
from pathlib import Path

MOST_RESIDENT_BYTES = 3e9
"""Of a worker of the suite; there are three on a machine of 16 GB."""
WORTH_BYTES = 5e8
"""Clearing takes seconds, and what is dropped is made again: it waits until there is as much as this to win."""


class Room:
    """Drops the programs that JAX keeps, once they fill more than a worker's share of memory."""

    def __init__(self):
        self._most = MOST_RESIDENT_BYTES

    def make(self):
        """Clear where there is more than the share, and than what the last clearing could not win."""
        if "jax" not in sys.modules or resident_bytes() <= self._most:
            return
        clear()
        self._most = max(MOST_RESIDENT_BYTES, resident_bytes() + WORTH_BYTES)


def clear():
    """Drop JAX's programs and return their memory, which the C library keeps unless it is told: it stays resident."""
    sys.modules["jax"].clear_caches()
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
