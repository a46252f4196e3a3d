"""The energy that this machine's GPUs use while another program runs, which times itself."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Final

import numpy as np

from engines.host.nvml import POLL_S, EnergyMeter, energy_meter

SHORTEST_S: Final = 1.0
"""A stretch has ten readings: counters are renewed every few hundredths of a second."""


class EnergyTrace:
    """Readings of a counter of energy, of which the program's timed part is the busiest stretch.

    When a program begins to time is its own knowledge. Its warm-up runs draw what its timed ones do, and loading and
    ending less, so the mean power of the timed runs is taken to be the highest that any stretch as long as they has.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.times_s: list[float] = []
        self.joules: list[float] = []

    def add(self, time_s: float, joules: float) -> None:
        """A reading, later than those before."""
        self.times_s.append(time_s)
        self.joules.append(joules)

    def stretch_s(self, seconds: float) -> float:
        """The length of the stretch that stands for ``seconds`` of timed runs: they, or the shortest or longest."""
        span = self.times_s[-1] - self.times_s[0] if self.times_s else 0.0
        return min(max(seconds, SHORTEST_S), span)

    def watts(self, seconds: float) -> float | None:
        """The mean power in the busiest stretch for ``seconds`` of timed runs; None of fewer than two readings.

        Between readings energy rises evenly. The largest difference over a fixed length then begins or ends at one.
        """
        length = self.stretch_s(seconds)
        if length <= 0:
            return None
        times, joules = np.asarray(self.times_s), np.asarray(self.joules)
        starts = np.concatenate([times, times - length])
        starts = starts[(starts >= times[0]) & (starts + length <= times[-1] + 1e-9)]
        used = np.interp(starts + length, times, joules) - np.interp(starts, times, joules)
        return float(used.max() / length)


def traced_energy(count: int) -> AbstractContextManager[EnergyTrace | None]:
    """Within it the energy of the first ``count`` GPUs is read; None where :func:`energy_meter` has none."""
    meter = energy_meter(count)
    return nullcontext() if meter is None else _reading(meter)


@contextmanager
def _reading(meter: EnergyMeter) -> Iterator[EnergyTrace]:
    trace, ended = EnergyTrace(meter.source), threading.Event()

    def read() -> None:
        trace.add(time.monotonic(), meter.joules())
        while not ended.wait(POLL_S):
            trace.add(time.monotonic(), meter.joules())

    thread = threading.Thread(target=read, name="energy-trace", daemon=True)
    with closing(meter):
        thread.start()
        try:
            yield trace
        finally:
            ended.set()
            thread.join()
            trace.add(time.monotonic(), meter.joules())
