"""What the pages about nights share: the verdict, with each answer's place among the site's rows and its interval."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

from bench.compare.nights.history import Answer, History, Machine
from bench.compare.nights.judge import Verdict, judge
from bench.compare.nights.read import Night
from bench.compare.nights.steps import StepRules
from bench.dashboard.read import Stored
from bench.measure.significance import PRIOR_FREEDOM
from engines.core.row import Row

LEVEL: Final = 0.95
"""Of all intervals of these pages."""
PREDICTED_LEVEL: Final = 0.80
"""Of ``latency_low_s`` to ``latency_high_s``."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedNights:
    """``nights`` of a folder, or where it has none, the UTC days of its rows (``by_date``); None without rows.

    ``places`` finds a row among the site's rows by :func:`key_of`.
    """

    nights: Sequence[Night]
    by_date: bool
    verdict: Verdict
    places: Mapping[tuple[Any, ...], int]

    @property
    def days(self) -> list[str]:
        """The nights' dates, oldest first."""
        return [night.day for night in self.nights]

    def place(self, row: Row) -> int:
        """The row's place in the site's table of rows."""
        return self.places[key_of(row)]


def judged_nights(stored: Stored, rules: StepRules, threshold: float) -> JudgedNights | None:
    """Judge what is stored, by the path that ``shardbench nightly`` takes."""
    nights = _merged(stored.nights) if stored.nights else _days(stored.rows)
    if not nights:
        return None
    return JudgedNights(
        nights=nights,
        by_date=not stored.nights,
        verdict=judge(nights, rules, threshold),
        places={key_of(row): place for place, row in enumerate(stored.rows)},
    )


def key_of(row: Row) -> tuple[Any, ...]:
    """What tells a row from others, whatever was withheld of it."""
    return (row.point_id, row.created_at, row.program_id, row.source, row.status, row.latency_s, row.host, row.engine)


def _merged(nights: Iterable[Night]) -> list[Night]:
    """One night a date: stores of the same date, in different folders, are one night."""
    by_day: dict[str, list[Night]] = {}
    for night in nights:
        by_day.setdefault(night.day, []).append(night)
    return [
        same[0]
        if len(same) == 1
        else Night(
            day=day,
            store=same[0].store,
            rows=sorted((row for each in same for row in each.rows), key=lambda row: row.created_at),
            damaged=[line for each in same for line in each.damaged],
        )
        for day, same in sorted(by_day.items())
    ]


def _days(rows: Iterable[Row]) -> list[Night]:
    """Rows of a store that is no night, by the UTC date on which they were made."""
    from pathlib import Path

    by_day: dict[str, list[Row]] = {}
    for row in rows:
        by_day.setdefault(row.created_at[:10], []).append(row)
    return [Night(day=day, store=Path(), rows=found) for day, found in sorted(by_day.items())]


class Intervals:
    """The 95% interval of an answer's time, as ``shardbench compare`` judges it.

    Of several processes: from the variance of log times between processes, that of all points of the machine counting
    as much as :data:`PRIOR_FREEDOM` degrees of freedom (as :func:`bench.measure.significance.between_processes`). Of
    one process: the interval of its median. Of a prediction: its own 80% interval, widened as that of a normal
    distribution of log times. None where nothing is known of the scatter.
    """

    def __init__(self, histories: Iterable[History]) -> None:
        squares: dict[Machine, tuple[float, int]] = {}
        for history in histories:
            if history.machine is not None:
                total, freedom = squares.get(history.machine, (0.0, 0))
                for answer in history.answers:
                    total, freedom = total + _squares(answer.times_s), freedom + max(0, len(answer.times_s) - 1)
                squares[history.machine] = total, freedom
        self._pooled = {machine: total / freedom for machine, (total, freedom) in squares.items() if freedom}
        self._freedom = {machine: freedom for machine, (_, freedom) in squares.items()}

    def of(self, history: History, answer: Answer) -> Interval | None:
        """The ends in seconds, around the answer's time."""
        time, row = answer.time_s, answer.row
        if time is None:
            return None
        if len(answer.times_s) > 1 and history.machine in self._pooled:
            own = len(answer.times_s) - 1
            pooled = self._pooled[history.machine]
            variance = (PRIOR_FREEDOM * pooled + _squares(answer.times_s)) / (PRIOR_FREEDOM + own)
            freedom = min(PRIOR_FREEDOM + own, self._freedom[history.machine])
            return _around(time, _t(freedom) * math.sqrt(variance / len(answer.times_s)))
        if row.ci_low is not None and row.ci_high is not None and row.ci_low > 0:
            return _widened(time, (row.ci_low, row.ci_high), row.ci_level or LEVEL)
        if row.latency_low_s is not None and row.latency_high_s is not None and row.latency_low_s > 0:
            return _widened(time, (row.latency_low_s, row.latency_high_s), PREDICTED_LEVEL)
        return None


def ratio_interval(old: tuple[float, Interval | None], new: tuple[float, Interval | None]) -> Interval | None:
    """The interval of the ratio new/old of two times from the interval of each, None where neither has one.

    The distances of the ends add as squares, in logarithms (MOVER: Zou and Donner 2008, Construction of confidence
    limits about effect measures).
    """
    if old[1] is None and new[1] is None:
        return None
    (low_old, high_old), (low_new, high_new) = old[1] or (old[0], old[0]), new[1] or (new[0], new[0])
    ratio = new[0] / old[0]
    below = math.hypot(math.log(new[0] / low_new), math.log(high_old / old[0]))
    above = math.hypot(math.log(high_new / new[0]), math.log(old[0] / low_old))
    return ratio * math.exp(-below), ratio * math.exp(above)


def _squares(times: Sequence[float]) -> float:
    """Σ(log t − mean)²."""
    logs = [math.log(time) for time in times]
    mean = math.fsum(logs) / len(logs) if logs else 0.0
    return math.fsum((each - mean) ** 2 for each in logs)


def _around(time: float, width: float) -> Interval:
    return time * math.exp(-width), time * math.exp(width)


def _widened(time: float, interval: Interval, level: float) -> Interval:
    """The interval at :data:`LEVEL`; its ends lie on both sides of the time."""
    factor = 1.0 if level == LEVEL else NormalDist().inv_cdf((1 + LEVEL) / 2) / NormalDist().inv_cdf((1 + level) / 2)
    low, high = min(interval[0], time), max(interval[1], time)
    return time * (low / time) ** factor, time * (high / time) ** factor


def _t(freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))
