"""Times a program: warms it up until it is steady, then samples it until the interval is tight."""

import gc
import math
import statistics as stdlib_statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from bench.measure.stats import median_interval
from engines.core.engine import Program
from engines.core.errors import InvalidRequest

TIMING_RULES_VERSION: Final = 1
"""Raised when the same program at the same speed would be measured another time; a test ties it to simulated runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingConfig:
    """``conf/timing/*.yaml``, which says what each key means."""

    min_samples: int = 10
    max_samples: int = 200
    min_time_s: float = 1.0
    max_time_s: float = 30.0
    min_warmup_runs: int = 3
    max_warmup_runs: int = 20
    warmup_window: int = 3
    warmup_tolerance: float = 0.1
    ci_level: float = 0.95
    max_relative_ci: float = 0.1
    bootstrap_resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidRequest(f"timing.{field.name}", value, "is no number", "see conf/timing/default.yaml")
            if field.type is int and not isinstance(value, int):
                raise InvalidRequest(f"timing.{field.name}", value, "is no whole number", "give 1 or more")
            if not math.isfinite(value):
                raise InvalidRequest(f"timing.{field.name}", value, "is not finite", "give a number")
            least = 1 if field.type is int and field.name != "seed" else 0
            if value < least:
                raise InvalidRequest(f"timing.{field.name}", value, "is too small", f"give {least} or more")
        for low, high in (
            ("min_samples", "max_samples"),
            ("min_time_s", "max_time_s"),
            ("min_warmup_runs", "max_warmup_runs"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise InvalidRequest(
                    f"timing.{low}",
                    getattr(self, low),
                    f"is more than timing.{high}={getattr(self, high)}",
                    f"raise timing.{high} too",
                )
        if not 0.5 <= self.ci_level < 1:
            raise InvalidRequest("timing.ci_level", self.ci_level, "is no level", "give a fraction such as 0.95")


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds of every timed run, a list a stage, run by run. ``warm`` is false where warm-up never became steady."""

    stages: dict[str, list[float]]
    warmup_runs: int
    warm: bool

    @property
    def totals(self) -> list[float]:
        """Seconds of every run, its stages added."""
        return [sum(run) for run in zip(*self.stages.values(), strict=True)]


def _alone(decision: bool) -> bool:
    return decision


def measure(
    program: Program,
    config: TimingConfig,
    clock: Callable[[], float] = time.perf_counter,
    agreed: Callable[[bool], bool] = _alone,
) -> Samples:
    """Time ``program`` (compiled and loaded already) by the rules of ``config``; ``clock`` is in seconds.

    Sampling goes on until the interval is narrow enough, a sequential fixed-width procedure (Chow and Robbins 1965,
    On the asymptotic theory of fixed-width sequential confidence intervals), within the least and most that the config
    allows. Young garbage is collected between runs and none in them. What a stage raises is raised on.

    Where several processes run the program together, ``agreed`` makes of each one's decision what all of them do, so
    that they run it equally often; it is called between runs.
    """
    warmup_runs, warm = _warm_up(program, config, clock, agreed)
    stages: dict[str, list[float]] = {stage.name: [] for stage in program.stages}
    samples = Samples(stages, warmup_runs, warm)
    begin = clock()
    while True:
        for name, seconds in _one_run(program, clock).items():
            stages[name].append(seconds)
        count, spent = len(samples.totals), clock() - begin
        over = count >= config.max_samples or spent >= config.max_time_s
        enough = count >= config.min_samples and spent >= config.min_time_s
        if agreed(over or (enough and _is_tight(samples, config))):
            return samples


def _warm_up(
    program: Program, config: TimingConfig, clock: Callable[[], float], agreed: Callable[[bool], bool]
) -> tuple[int, bool]:
    """Run until the last window's median is within tolerance of the window before; how many runs, and whether so."""
    window = config.warmup_window
    runs: list[float] = []
    while len(runs) < config.max_warmup_runs:
        runs.append(sum(_one_run(program, clock).values()))
        steady = False
        if len(runs) >= max(config.min_warmup_runs, 2 * window):
            before = stdlib_statistics.median(runs[-2 * window : -window])
            now = stdlib_statistics.median(runs[-window:])
            steady = abs(now - before) <= config.warmup_tolerance * before
        if agreed(steady):
            return len(runs), True
    return len(runs), False


def _one_run(program: Program, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of each stage of one run."""
    gc.collect(0)
    enabled = gc.isenabled()
    gc.disable()
    try:
        seconds = {}
        for stage in program.stages:
            begin = clock()
            stage.run()
            seconds[stage.name] = clock() - begin
        return seconds
    finally:
        if enabled:
            gc.enable()


def _is_tight(samples: Samples, config: TimingConfig) -> bool:
    values = np.asarray(samples.totals)
    low, high = median_interval(values, config.ci_level, config.bootstrap_resamples, config.seed)
    return (high - low) / 2 <= config.max_relative_ci * float(np.median(values))
