"""Statistics of samples, with the confidence interval of their median."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
MAX_BLOCK_ELEMENTS: Final = 4_000_000
"""Elements resampled at once, which bounds the memory that the bootstrap uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Statistics of ``n`` samples, in their unit. ``std`` divides by n − 1; the interval is of the median."""

    n: int
    mean: float
    median: float
    std: float
    min: float
    max: float
    p90: float
    p99: float
    ci_low: float
    ci_high: float
    ci_level: float


def summarise(samples: Sequence[float], ci_level: float, resamples: int, seed: int) -> Summary:
    """Summarise samples of a time.

    The interval is the percentile bootstrap of the median (Efron and Tibshirani 1993, An Introduction to the
    Bootstrap, chapter 13): ``resamples`` draws of n with replacement, and the quantiles of their medians. A row reports
    the median because one interrupted run changes a mean but hardly a median.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("no samples to summarise")
    values = np.asarray(samples, dtype=np.float64)
    low, high = median_interval(values, ci_level, resamples, seed)
    return Summary(
        n=values.size,
        mean=float(values.mean()),
        median=float(np.median(values)),
        std=float(values.std(ddof=1)) if values.size > 1 else 0.0,
        min=float(values.min()),
        max=float(values.max()),
        p90=float(np.quantile(values, 0.9)),
        p99=float(np.quantile(values, 0.99)),
        ci_low=low,
        ci_high=high,
        ci_level=ci_level,
    )


def median_interval(values: Floats, ci_level: float, resamples: int, seed: int) -> tuple[float, float]:
    """Percentile bootstrap interval of the median of ``values`` [n], deterministic for a seed."""
    return quantile_interval(resampled_medians(values, resamples, np.random.default_rng(seed)), ci_level)


def resampled_medians(values: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """Medians [resamples], each of n draws with replacement from ``values`` [n]."""
    medians = np.empty(resamples)
    rows = max(1, MAX_BLOCK_ELEMENTS // values.size)
    for begin in range(0, resamples, rows):
        block = medians[begin : begin + rows]
        drawn = generator.integers(0, values.size, size=(block.size, values.size))
        block[:] = np.median(values[drawn], axis=1)
    return medians


def quantile_interval(statistics: Floats, ci_level: float) -> tuple[float, float]:
    """The quantiles that enclose the middle ``ci_level`` of bootstrap ``statistics`` [resamples]."""
    tail = (1 - ci_level) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return float(low), float(high)
