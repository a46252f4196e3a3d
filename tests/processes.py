"""Waiting for processes and what they do. A busy machine makes anything slow, so all waits here are long."""

import os
import time
from pathlib import Path

PATIENCE_S = 240


def wait_for(happened):
    """What ``happened()`` returns, once that is something."""
    end = time.monotonic() + PATIENCE_S
    while not (found := happened()):
        assert time.monotonic() < end, f"did not happen within {PATIENCE_S} s"
        time.sleep(0.02)
    return found


def state(pid):
    """The kernel's letter for a process; None where it is gone."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it may end, and be reaped, between two lines
        return None


def gone(pid):
    """Whether a process has ended, whether or not its parent has heard of it yet."""
    return state(pid) in (None, "Z", "X")


def wait_until_gone(*pids):
    """Return when all of them have ended."""
    wait_for(lambda: all(gone(pid) for pid in pids))
