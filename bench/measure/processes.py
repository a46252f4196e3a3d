"""Samples of one program from several processes: their common time, and by how much the processes differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, stdev
from typing import Any

import numpy as np

from bench.measure.stats import Floats, Summary, quantile_interval, resampled_medians, summarise
from bench.measure.timing import Samples, TimingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedProcess:
    """What one process found: its samples, why they should not count (None: they should), what else the machine did."""

    samples: Samples
    unsound: str | None = None
    background: Mapping[str, Any] | None = None


def summarise_processes(processes: Sequence[Sequence[float]], config: TimingConfig) -> Summary:
    """:func:`bench.measure.stats.summarise` of samples [process][run].

    ``median`` is the median of the processes' medians: each process counts once, however long it took to get steady,
    because its samples share one state of the machine. Its interval is a bootstrap in two stages (Davison and Hinkley
    1997, Bootstrap Methods and their Application, section 3.8): processes are drawn with replacement, and in each the
    samples. The other statistics are of all samples together.

    Raises:
        ValueError: there are no samples.
    """
    if len(processes) == 1:
        return summarise(processes[0], config.ci_level, config.bootstrap_resamples, config.seed)
    pooled = summarise([time for each in processes for time in each], config.ci_level, 1, config.seed)
    generator = np.random.default_rng(config.seed)
    values = [np.asarray(each, dtype=np.float64) for each in processes]
    slots = []
    for _ in processes:
        drawn = np.stack([resampled_medians(each, config.bootstrap_resamples, generator) for each in values])
        chosen = generator.integers(0, len(processes), size=config.bootstrap_resamples)
        slots.append(drawn[chosen, np.arange(config.bootstrap_resamples)])
    statistics: Floats = np.median(np.stack(slots), axis=0)
    low, high = quantile_interval(statistics, config.ci_level)
    return replace(pooled, median=common_median(processes), ci_low=low, ci_high=high)


def common_median(processes: Sequence[Sequence[float]]) -> float:
    """The median of the processes' medians."""
    return median(map(median, processes))


def spread(processes: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation (n − 1) of the processes' medians as a share of their median; None of one process alone."""
    if len(processes) < 2:
        return None
    medians = [median(each) for each in processes]
    return stdev(medians) / median(medians)
