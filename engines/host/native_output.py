"""Keeps what native libraries print away from stdout, which is the command's own: one row a line, with print=json."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STDOUT: Final = 1
STDERR: Final = 2


@contextmanager
def on_stderr() -> Iterator[None]:
    """What C and C++ write to stdout meanwhile goes to stderr; some of it no option of a library turns off."""
    sys.stdout.flush()
    kept = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # C buffers where stdout is no terminal, and would write after the return
        os.dup2(kept, STDOUT)
        os.close(kept)
