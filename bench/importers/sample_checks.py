"""Whether the statistics that a file states are those of its samples."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from bench.importers.content import Content

ROUNDING: Final = 1e-3
"""Relative difference up to which a statistic is that of the samples, rounded."""


def check_samples(
    content: Content,
    samples: Sequence[float],
    *,
    mean: str | None = None,
    std: str | None = None,
    total: str | None = None,
    count: str | None = None,
    percentiles: Mapping[str, float] | None = None,
) -> None:
    """Compare the statistics under the given keys of the file with those of ``samples``, in the samples' unit.

    ``std`` may be the population's or the sample's; ``percentiles`` maps a key to its percentile, which lies between
    the samples beside its rank, as every convention has it.

    Raises:
        ShardbenchError: one differs.
    """
    stated = {mean: statistics.fmean(samples), total: math.fsum(samples), count: float(len(samples))}
    for key, computed in stated.items():
        if key is None:
            continue
        known = content.number(key)
        if known is not None and not math.isclose(known.value, computed, rel_tol=ROUNDING):
            raise content.invalid(key, known.value, f"{computed:.6g}, as its samples have it")
    if std is not None and (known := content.number(std, zero=True)) is not None:
        spreads = [statistics.pstdev(samples), statistics.stdev(samples) if len(samples) > 1 else 0.0]
        room = ROUNDING * statistics.fmean(samples)
        if not min(spreads) * (1 - ROUNDING) - room <= known.value <= max(spreads) * (1 + ROUNDING) + room:
            raise content.invalid(std, known.value, f"{spreads[0]:.6g}, as its samples have it")
    ordered = sorted(samples)
    for key, percentile in (percentiles or {}).items():
        known = content.number(key)
        rank = percentile / 100 * (len(ordered) - 1)
        low = ordered[max(0, math.floor(rank) - 1)] * (1 - ROUNDING)
        high = ordered[min(len(ordered) - 1, math.ceil(rank) + 1)] * (1 + ROUNDING)
        if known is not None and not low <= known.value <= high:
            raise content.invalid(key, known.value, f"between {low:.6g} and {high:.6g}, as its samples have it")
