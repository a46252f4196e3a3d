"""Times a program: warms it up until its time is steady, then samples until the confidence interval is narrow."""

import gc
import math
import statistics as stdlib_statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np

from bench.measure.stats import median_interval
from engines.core.engine import Program
from engines.core.errors import InvalidRequest

TIMING_RULES_VERSION: Final = 1
"""Incremented when the same program at the same speed would get different samples; a test ties it to simulated runs."""

ADDED_LATER: Final = frozenset({"max_background_share", "max_gpu_others"})
"""Keys that rows stored before them were measured without; they change no sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingConfig:
    """The keys of ``conf/timing/*.yaml``, which describes each of them.

    Raises:
        InvalidRequest: a value is not a number, out of range, or a minimum is above its maximum.
    """

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
    max_background_share: float = 0.1
    max_gpu_others: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind = "an integer" if field.type is int else "a number"
            least = 1 if field.type is int and field.name not in ("seed", "max_gpu_others") else 0
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number or (field.type is int and not isinstance(value, int)) or value < least:
                raise InvalidRequest(
                    f"timing.{field.name}", value, f"must be {kind} ≥ {least}", f"the default is {field.default}"
                )
        for low, high in (
            ("min_samples", "max_samples"),
            ("min_time_s", "max_time_s"),
            ("min_warmup_runs", "max_warmup_runs"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise InvalidRequest(
                    f"timing.{low}",
                    getattr(self, low),
                    f"must be ≤ timing.{high}={getattr(self, high)}",
                    f"lower it or raise timing.{high}",
                )
        if not 0.5 <= self.ci_level < 1:
            raise InvalidRequest(
                "timing.ci_level", self.ci_level, "must be ≥ 0.5 and < 1", "use a fraction such as 0.95"
            )

    def stated(self) -> dict[str, Any]:
        """The keys as a row's conditions hold them: those of :data:`ADDED_LATER` where they are not the defaults."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in ADDED_LATER or getattr(self, each.name) != each.default
        }


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds of every timed run, one list [runs] per stage. ``warm`` is false if warm-up never became steady.

    ``mean_power_w`` is of the time in which the runs were done, with what lies between them; None if nobody measured.
    """

    stages: dict[str, list[float]]
    warmup_runs: int
    warm: bool
    mean_power_w: float | None = None

    @property
    def totals(self) -> list[float]:
        """Seconds [runs] of every run: the sum of its stages."""
        return [sum(run) for run in zip(*self.stages.values(), strict=True)]


def _single_process(decision: bool) -> bool:
    return decision


def measure(
    program: Program,
    config: TimingConfig,
    clock: Callable[[], float] = time.perf_counter,
    agree: Callable[[bool], bool] = _single_process,
    joules: Callable[[], float] | None = None,
) -> Samples:
    """Time ``program`` (already compiled and loaded) by the rules of ``config``; ``clock`` is in seconds.

    ``joules`` is a counter of the devices' energy, read before the first run and after the last.

    Sampling continues until the interval is narrow enough, a sequential fixed-width procedure (Chow and Robbins 1965,
    On the asymptotic theory of fixed-width sequential confidence intervals), within the minimum and maximum of the
    config. Young garbage is collected between runs and never during one. Exceptions of a stage propagate.

    If several processes run the program in lockstep, ``agree`` turns each process's decision to stop into the one that
    all of them follow, so that they do the same number of runs; it is called between runs.
    """
    warmup_runs, warm = _warm_up(program, config, clock, agree)
    stages: dict[str, list[float]] = {stage.name: [] for stage in program.stages}
    samples = Samples(stages, warmup_runs, warm)
    joules_before = None if joules is None else joules()
    begin = clock()
    while True:
        for name, seconds in _one_run(program, clock).items():
            stages[name].append(seconds)
        count, elapsed = len(samples.totals), clock() - begin
        at_maximum = count >= config.max_samples or elapsed >= config.max_time_s
        at_minimum = count >= config.min_samples and elapsed >= config.min_time_s
        if agree(at_maximum or (at_minimum and _is_narrow(samples, config))):
            if joules is None or joules_before is None:
                return samples
            return replace(samples, mean_power_w=(joules() - joules_before) / (clock() - begin))


def _warm_up(
    program: Program, config: TimingConfig, clock: Callable[[], float], agree: Callable[[bool], bool]
) -> tuple[int, bool]:
    """Run until a window's median is within tolerance of the previous window's; returns runs done and whether it is."""
    window = config.warmup_window
    runs: list[float] = []
    while len(runs) < config.max_warmup_runs:
        runs.append(sum(_one_run(program, clock).values()))
        steady = False
        if len(runs) >= max(config.min_warmup_runs, 2 * window):
            before = stdlib_statistics.median(runs[-2 * window : -window])
            now = stdlib_statistics.median(runs[-window:])
            steady = abs(now - before) <= config.warmup_tolerance * before
        if agree(steady):
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


def _is_narrow(samples: Samples, config: TimingConfig) -> bool:
    values = np.asarray(samples.totals)
    low, high = median_interval(values, config.ci_level, config.bootstrap_resamples, config.seed)
    return (high - low) / 2 <= config.max_relative_ci * float(np.median(values))
