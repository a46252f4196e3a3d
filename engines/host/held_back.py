"""Short work that a signal must not cut in two: cleaning up, or putting finished files in their places."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def signals_held() -> Iterator[None]:
    """Let SIGTERM and SIGINT wait until the block has ended, then do what they do without it.

    In another thread than the main one there is nothing to hold: Python's handlers run in the main one.
    """
    came: list[int] = []
    former = {}
    if threading.current_thread() is threading.main_thread():
        # None is a handler that is not Python's, which could not be put back.
        former = {
            number: found for number in SIGNALS if (found := signal.getsignal(number)) not in (None, signal.SIG_IGN)
        }
    try:
        for number in former:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        for each in dict.fromkeys(came):
            signal.raise_signal(each)
