"""Relative errors of times against reference times, and their statistics.

``validate``, ``calibrate``, the reports and the studies all use these functions, so the same rows give the same numbers
in each of them.
"""

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorStats:
    """Statistics of ``n`` relative errors, as fractions. All but ``bias`` use absolute values.

    ``p90`` is the 90th percentile with linear interpolation, as for the samples of a row; ``bias`` is the mean of the
    signed errors.
    """

    n: int
    mean: float
    median: float
    p90: float
    worst: float
    bias: float

    def to_dict(self) -> dict[str, float]:
        """The statistics under the keys of ``validate print=json`` and of the stored constants."""
        return {
            "mape": self.mean,
            "median_ape": self.median,
            "p90_ape": self.p90,
            "worst_ape": self.worst,
            "bias": self.bias,
        }


def relative_error(answer_s: float | None, reference_s: float | None) -> float | None:
    """(answer − reference) / reference, signed; None if either is None."""
    return None if answer_s is None or reference_s is None else answer_s / reference_s - 1


def error_stats(errors: Iterable[float]) -> ErrorStats | None:
    """Statistics of signed relative errors, independent of their order; None if there are none."""
    signed = [float(error) for error in errors]
    if not signed:
        return None
    sizes = sorted(map(abs, signed))
    return ErrorStats(
        n=len(sizes),
        mean=statistics.fmean(sizes),
        median=statistics.median(sizes),
        p90=float(np.quantile(sizes, 0.9)),
        worst=sizes[-1],
        bias=statistics.fmean(signed),
    )


def oom_counts(statuses: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Counts of pairs (reference status, answer status) by out of memory.

    ``oom_hit``: both are out of memory; ``oom_missed``: only the reference is, and the answer has a time;
    ``oom_false``: only the answer is, and the reference has a time. Other statuses, such as ``unsupported``, count in
    none of them.
    """
    counts = Counter(statuses)
    return {
        "oom_hit": counts["oom", "oom"],
        "oom_missed": counts["oom", "ok"],
        "oom_false": counts["ok", "oom"],
    }
