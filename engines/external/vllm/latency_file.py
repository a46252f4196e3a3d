"""Reads the output file of ``vllm bench latency --output-json``."""

import math
import statistics
from collections.abc import Mapping
from typing import Any, Final

from engines.core.errors import ShardbenchError

LATENCY_KEYS: Final = ("avg_latency", "latencies")


def latencies(content: Mapping[str, Any], file: str) -> tuple[list[float], float]:
    """Seconds [runs] of every timed run of the whole batch (prefill and decode), and their median.

    Raises:
        ShardbenchError: ``latencies`` is not a list of times, or ``avg_latency`` is not its mean; names ``file``.
    """
    samples = content.get("latencies")
    all_times = isinstance(samples, list) and samples and all(_is_time(each) for each in samples)
    if not isinstance(samples, list) or not all_times:
        raise ShardbenchError(f"{file}: latencies must be a list of numbers > 0 in seconds")
    average: Any = content.get("avg_latency")
    if not _is_time(average) or not math.isclose(average, statistics.fmean(samples), rel_tol=1e-6):
        raise ShardbenchError(
            f"{file}: avg_latency={average} must be the mean of latencies, {statistics.fmean(samples):g}"
        )
    return [float(each) for each in samples], statistics.median(samples)


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
