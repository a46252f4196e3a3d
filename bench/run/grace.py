"""A time to finish in: a command that is told to end may first store the row of what it is about to have measured.

SIGTERM comes from a batch system (SLURM's ``--signal`` and preemption), a spot machine's notice or Kubernetes, SIGINT
from Ctrl-C. With ``grace_s=0`` both end the command at once, as :mod:`bench.cli.interrupts` says: the present point is
dropped. With more, the first of them lets the present point go on for so many seconds; no other is begun. A second
signal, or the end of the time, drops it.
"""

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Final

from engines.core.row import Row

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Grace:
    """Holds signals back while a row is under way, for ``grace_s`` seconds at most; only in the main thread."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._asked: int | None = None
        self._under_way: set[str] = set()
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "Grace":
        if self._grace_s > 0 and threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if callable(before):
                    self._before[number] = before
                    signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, before in self._before.items():
            if signal.getsignal(number) == self._stop:
                signal.signal(number, before)

    @property
    def is_ending(self) -> bool:
        """Whether the command was told to end, so that nothing else shall be begun."""
        return self._asked is not None

    def begin(self, key: str) -> None:
        """Something is under way from now on whose row would be lost."""
        self._under_way.add(key)

    def end(self, key: str) -> None:
        """Its row is stored, or nobody stores it."""
        self._under_way.discard(key)

    def check(self) -> None:
        """End the command if it was told to and nothing is under way any more.

        Raises:
            KeyboardInterrupt: it was.
        """
        if self._asked is not None and not self._under_way:
            self._pass_on(self._asked)

    def kept(self, rows: Sequence[Row]) -> list[Row]:
        """Rows that are worth storing: where all processes of a job get the signal, a point may fail because of it."""
        return [row for row in rows if self._asked is None or row.status not in ("failed", "timeout")]

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._asked is not None or not self._under_way:
            self._pass_on(number)
        self._asked = number
        print(
            f"shardbench: {signal.Signals(number).name}: the present point may end within grace_s={self._grace_s:g} s; "
            "the same signal again drops it",
            file=sys.stderr,
            flush=True,
        )
        self._timer = threading.Timer(self._grace_s, _again, (number,))
        self._timer.daemon = True
        self._timer.start()

    def _pass_on(self, number: int) -> None:
        """Do what the signal did before: it raises."""
        self.__exit__(None, None, None)
        self._before[number](number, None)
        raise KeyboardInterrupt


def _again(number: int) -> None:
    """Send this process's main thread the signal, so that what it waits for is interrupted."""
    ident = threading.main_thread().ident
    if ident is not None:
        signal.pthread_kill(ident, number)
