"""Errors against reference times: the one definition of a relative error and of its statistics.

``validate``, ``calibrate``, the reports and the studies all print these figures, so the same rows give the same numbers
in each of them.
"""

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorStats:
    """Statistics of ``n`` relative errors, as fractions. All but ``bias`` are of absolute values.

    ``p90`` is the 90th percentile, linear between neighbouring errors, as the percentiles of a row's samples are;
    ``bias`` is the mean of the signed errors.
    """

    n: int
    mean: float
    median: float
    p90: float
    worst: float
    bias: float

    def to_dict(self) -> dict[str, float]:
        """The figures under the keys of ``validate print=json`` and of the stored constants."""
        return {
            "mape": self.mean,
            "median_ape": self.median,
            "p90_ape": self.p90,
            "worst_ape": self.worst,
            "bias": self.bias,
        }


def relative_error(answer_s: float | None, reference_s: float | None) -> float | None:
    """(answer − reference) / reference, signed; None where either is unknown."""
    return None if answer_s is None or reference_s is None else answer_s / reference_s - 1


def error_stats(errors: Iterable[float]) -> ErrorStats | None:
    """Statistics of signed relative errors, independent of their order; None without any."""
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
    """Out of memory over pairs of (reference status, answer status).

    ``oom_hit``: both ran out of memory; ``oom_missed``: the reference did, and the answer has a time; ``oom_false``:
    the reference ran, and the answer says out of memory. Other answers, such as ``unsupported``, count in none.
    """
    counts = Counter(statuses)
    return {
        "oom_hit": counts["oom", "oom"],
        "oom_missed": counts["oom", "ok"],
        "oom_false": counts["ok", "oom"],
    }
