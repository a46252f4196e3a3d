"""An engine whose points take as long as they are told, and no processor: a cluster of many hosts fits on one."""

import time
from typing import Any

from engines.core.point import Point
from perf.trivial_engine import TrivialEngine, TrivialProgram


class SleepingEngine(TrivialEngine):
    """``engine=jax engine._target_=perf.sleeping_engine.SleepingEngine +engine.sleep_s=4``."""

    def __init__(self, sleep_s: float = 1.0, **settings: Any) -> None:
        super().__init__(**settings)
        self._sleep_s = sleep_s

    def prepare(self, point: Point) -> TrivialProgram:
        """A program that took so long to build."""
        time.sleep(self._sleep_s)
        return super().prepare(point)
