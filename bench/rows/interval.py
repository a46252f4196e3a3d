"""The 80% interval of a predicted row, for its time and for what follows from it."""

from collections.abc import Iterable, Sequence
from typing import Final

from bench.rows.metrics import METRICS
from engines.core.row import Row

Segment = tuple[tuple[float, float], tuple[float, float]]
"""The two ends of a line, each (x, y)."""
SAID: Final = "Thin lines are 80% intervals of the predictions."
"""What a caption says where a figure draws them."""


def relative_interval(row: Row) -> tuple[float, float] | None:
    """The ends of the interval over the predicted time, below and above 1; None for a row that has none.

    A decode step and a cost have the same, in proportion to the time; MFU and tokens/s have its inverse.
    """
    if row.latency_low_s is None or row.latency_high_s is None or not row.latency_s:
        return None
    return row.latency_low_s / row.latency_s, row.latency_high_s / row.latency_s


def inside(predicted: Row, seconds: float) -> bool | None:
    """Whether a measured time lies in the interval; None for a row that has none."""
    if predicted.latency_low_s is None or predicted.latency_high_s is None:
        return None
    return predicted.latency_low_s <= seconds <= predicted.latency_high_s


def coverage(pairs: Iterable[tuple[Row, float | None]]) -> float | None:
    """The share of measured times that lie in their prediction's interval; None where there is no interval."""
    found = [inside(row, seconds) for row, seconds in pairs if seconds is not None]
    known = [each for each in found if each is not None]
    return sum(known) / len(known) if known else None


def ends(rows: Sequence[Row], x: Sequence[float], y: Sequence[float], powers: tuple[int, int]) -> list[Segment]:
    """From the low to the high end of each row's interval, where it is drawn at (x, y).

    ``powers`` say how each coordinate goes with the time: 1 for a time or a cost, −1 for MFU, 0 for a batch size.
    """
    segments = []
    for row, here, there in zip(rows, x, y, strict=True):
        interval = relative_interval(row)
        if interval is not None:
            segments.append(segment(interval, here, there, powers))
    return segments


def segment(interval: tuple[float, float], x: float, y: float, powers: tuple[int, int]) -> Segment:
    """From the low to the high end of one relative interval, drawn at (x, y); see :func:`ends`."""
    low, high = ((x * end ** powers[0], y * end ** powers[1]) for end in interval)
    return low, high


def power_of(name: str, phase: str) -> int:
    """How a metric goes with the time of a row of this phase: 1, or −1 for its inverse.

    0 for what does not, and for the figures of one stage of a generate point, whose share of the interval nobody knows.
    """
    metric = METRICS.get(name)
    if metric is None or metric.compute is None or (phase == "generate" and _is_of_a_stage(name)):
        return 0
    return 1 if metric.better == "lower" else -1


def _is_of_a_stage(name: str) -> bool:
    """Whether a derived metric needs the time of the prefill or of the decode steps alone."""
    needs = METRICS[name].needs
    return any(
        need in ("prefill_s", "decode_s") or (need in METRICS and _is_of_a_stage(need))
        for need in needs
        if need != name
    )
