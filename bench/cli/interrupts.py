"""SIGTERM, as a batch system or a preempted machine sends it, ends a command as Ctrl-C does.

The present point is dropped, its processes are ended, its lease is given back; finished points are stored, and the next
command goes on from there.
"""

import signal
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. No ``except Exception`` on its way takes it for a failure of the point."""


def take_sigterm() -> None:
    """Raise :class:`Terminated` in the main thread at the first SIGTERM; a second one ends the process at once."""
    signal.signal(signal.SIGTERM, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    del frame
    signal.signal(number, signal.SIG_DFL)
    raise Terminated


def exit_code(error: KeyboardInterrupt) -> int:
    """128 and the number of the signal, as shells have it."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)
