"""What samples say, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
MOST_DRAWN_AT_ONCE: Final = 4_000_000
"""Elements, so that many samples take time and not memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Of ``n`` samples, in their unit. ``std`` is the sample's (n − 1); the interval is of the median."""

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
    Bootstrap, chapter 13): ``resamples`` draws of n with replacement, and the quantiles of their medians. The median
    is what a row reports because one interrupted run moves a mean and not a median.

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
    """Percentile bootstrap interval of the median of ``values`` [n], the same for the same seed."""
    return quantile_interval(resampled_medians(values, resamples, np.random.default_rng(seed)), ci_level)


def resampled_medians(values: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """Medians [resamples] of as many draws of n with replacement from ``values`` [n]."""
    medians = np.empty(resamples)
    rows = max(1, MOST_DRAWN_AT_ONCE // values.size)
    for begin in range(0, resamples, rows):
        block = medians[begin : begin + rows]
        drawn = generator.integers(0, values.size, size=(block.size, values.size))
        block[:] = np.median(values[drawn], axis=1)
    return medians


def quantile_interval(statistics: Floats, ci_level: float) -> tuple[float, float]:
    """The middle ``ci_level`` of a bootstrap's statistics."""
    tail = (1 - ci_level) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return float(low), float(high)
