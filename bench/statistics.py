"""What samples say, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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


def median_interval(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], ci_level: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Percentile bootstrap interval of the median, the same for the same seed."""
    drawn = np.random.default_rng(seed).integers(0, values.size, size=(resamples, values.size))
    medians = np.median(values[drawn], axis=1)
    tail = (1 - ci_level) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return float(low), float(high)
