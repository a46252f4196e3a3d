"""Significance tests: whether two sets of samples differ, and by how much."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.measure.stats import quantile_interval, resampled_medians
from engines.core.errors import ShardbenchError

NO_SCIPY: Final = "compare: measured rows need scipy, which is not installed; pip install 'shardbench[fit]'"
PRIOR_FREEDOM: Final = 4
"""Degrees of freedom given to the pooled variance of all points: as many as three processes a side have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """New over old, of medians or of means of medians, with its confidence interval."""

    value: float
    ci_low: float
    ci_high: float


def mann_whitney(old: Sequence[float], new: Sequence[float]) -> float:
    """Two-sided p-value of the Mann–Whitney U test (Mann and Whitney 1947) that neither set tends to be larger.

    A rank test, because run times are skewed and one interrupted run must not decide the result. Exact for small
    samples without ties, else the normal approximation with correction for ties and continuity.

    Raises:
        ShardbenchError: scipy is not installed.
    """
    try:
        from scipy.stats import mannwhitneyu
    except ModuleNotFoundError:
        raise ShardbenchError(NO_SCIPY) from None
    if len(set(old) | set(new)) == 1:
        return 1.0  # all samples are equal, so the statistic has variance 0
    return float(mannwhitneyu(old, new, alternative="two-sided").pvalue)


def median_ratio(old: Sequence[float], new: Sequence[float], ci_level: float, resamples: int, seed: int) -> Ratio:
    """Ratio of medians with a percentile bootstrap interval: both sets are resampled independently.

    Efron and Tibshirani 1993, An Introduction to the Bootstrap, sections 8.3 (two samples) and 13.3 (percentiles).
    """
    generator = np.random.default_rng(seed)
    before, after = np.asarray(old, dtype=np.float64), np.asarray(new, dtype=np.float64)
    drawn = resampled_medians(after, resamples, generator) / resampled_medians(before, resamples, generator)
    low, high = quantile_interval(drawn, ci_level)
    return Ratio(value=float(np.median(after) / np.median(before)), ci_low=low, ci_high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Times of one point in seconds, one per process: the median of its samples."""

    old: Sequence[float]
    new: Sequence[float]

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the variance between processes."""
        return len(self.old) + len(self.new) - 2


def between_processes(runs: Sequence[Runs], ci_level: float) -> list[tuple[Ratio, float]]:
    """Ratio of geometric means and two-sided p-value for each point, from the variance between processes.

    Samples of one process are not independent, because they share the state of the machine, so each process counts as
    one sample of a moderated t-test on logarithms (Smyth 2004, Linear models and empirical Bayes methods for assessing
    differential expression). One point has too few processes to estimate its variance well, so the pooled variance of
    all points is added with :data:`PRIOR_FREEDOM` degrees of freedom.

    Raises:
        ShardbenchError: scipy is not installed, or no point has several processes on a side.
    """
    try:
        from scipy.stats import t
    except ModuleNotFoundError:
        raise ShardbenchError(NO_SCIPY) from None
    squares = [_squares(each.old) + _squares(each.new) for each in runs]
    all_freedom = sum(each.freedom for each in runs)
    if not all_freedom:
        raise ShardbenchError("by_process=true: no point was measured by several processes; use nightly processes=3")
    pooled = sum(squares) / all_freedom
    found = []
    for each, own_squares in zip(runs, squares, strict=True):
        variance = (PRIOR_FREEDOM * pooled + own_squares) / (PRIOR_FREEDOM + each.freedom)
        freedom = min(PRIOR_FREEDOM + each.freedom, all_freedom)
        shift = float(np.mean(np.log(each.new)) - np.mean(np.log(each.old)))
        error = math.sqrt(variance * (1 / len(each.old) + 1 / len(each.new)))
        width = float(t.ppf((1 + ci_level) / 2, freedom)) * error
        p_value = 2 * float(t.sf(abs(shift) / error, freedom)) if error else float(shift == 0)
        ratio = Ratio(value=math.exp(shift), ci_low=math.exp(shift - width), ci_high=math.exp(shift + width))
        found.append((ratio, p_value))
    return found


def _squares(times: Sequence[float]) -> float:
    """Σ(log t − mean)²."""
    logs = np.log(times)
    return float(np.square(logs - logs.mean()).sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple tests (Holm 1979, A simple sequentially rejective multiple test procedure).

    The i-th smallest of m (from 0) becomes the largest of (m − j)·p_j for j ≤ i, at most 1. Rejecting adjusted values
    below alpha keeps the chance of any false positive below alpha, whatever the dependence between the tests.
    """
    adjusted = [1.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
