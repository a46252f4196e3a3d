"""How long points take to answer: from earlier rows of the same engine, and from closed forms where there are none."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Final

import numpy as np

from bench.measure.timing import TimingConfig
from bench.rows.select import Selection
from bench.run.again import requested_point
from engines.analytic.engine import AnalyticEngine
from engines.core.errors import ShardbenchError
from engines.core.point import Point
from engines.core.row import Row

LEAST_S: Final = 5.0
"""What a point takes beside its runs where nothing is known: to be compiled and checked. Shorter ones count as long."""
CPU_FLOPS_PER_S: Final = 5e10
"""Of a core, where no datasheet says it: right within ten times, which is enough for an order."""
MOST_ROWS: Final = 200
"""The newest rows of an engine that are looked at."""
ROWS_OF_A_LINE: Final = 3
"""With fewer rows their median stands for all points."""


def closed_forms(points: Sequence[Point]) -> list[float]:
    """Seconds of one run of each point: of ``engines.analytic``, or FLOPs at the datasheet's peak where it refuses."""
    predicted = [index for index, point in enumerate(points) if point.chip.kind != "cpu"]
    answers = AnalyticEngine().estimate([replace(points[index], engine="analytic") for index in predicted])
    times = {index: each.latency_s for index, each in zip(predicted, answers, strict=True)}
    return [times.get(index) or _at_peak(point) for index, point in enumerate(points)]


def _at_peak(point: Point) -> float:
    try:
        peak = point.chip.peak(point.act_dtype)
    except ShardbenchError:
        peak = CPU_FLOPS_PER_S
    return max(1, point.tokens) * point.model.matmul_flops_per_token / (point.num_chips * peak)


def runs_of(run_s: float, timing: TimingConfig) -> float:
    """Seconds of all runs that the rules of ``timing`` make of a program that runs ``run_s``, in a quiet machine."""
    warmup = max(timing.min_warmup_runs, 2 * timing.warmup_window) * run_s
    sampling = max(timing.min_time_s, timing.min_samples * run_s)
    return warmup + min(sampling, timing.max_time_s + run_s)


@dataclass(slots=True)
class EngineDurations:
    """What one engine's points took: seconds by point_id, and with the closed form of a run."""

    by_point: dict[str, list[float]] = field(default_factory=dict)
    pairs: list[tuple[float, float]] = field(default_factory=list)

    def add(self, point_id: str, run_s: float | None, took_s: float) -> None:
        """Learn what a point took."""
        self.by_point.setdefault(point_id, []).append(took_s)
        if run_s is not None:
            self.pairs.append((run_s, took_s))

    def expected(self, point_id: str, run_s: float) -> float | None:
        """Seconds of a point: what it took before, else by the line log(took) = a + b·log(run), 0 ≤ b ≤ 1.

        A bounded slope, because what is compiled or sampled takes about the same whatever a run takes, and nothing
        takes more than in proportion. None where there are no rows.
        """
        if point_id in self.by_point:
            return median(self.by_point[point_id])
        if not self.pairs:
            return None
        x, y = np.log(np.array(self.pairs)).T
        slope = 0.0
        if len(x) >= ROWS_OF_A_LINE and np.ptp(x) > 0:
            slope = float(np.clip(np.polyfit(x, y, 1)[0], 0.0, 1.0))
        return math.exp(float(np.median(y - slope * x)) + slope * math.log(run_s))


class Durations:
    """Expected seconds of points, by engine, from rows as they come."""

    def __init__(self) -> None:
        self._engines: dict[str, EngineDurations] = {}
        self._stores: list[Selection] = []

    def know(self, stored: Selection) -> None:
        """Learn from the rows of a store, where it is asked of their engine."""
        self._stores.append(stored)

    def learn(self, row: Row, run_s: float | None) -> None:
        """Learn from a new row, with the closed form of its point."""
        if row.took_s:
            self._of(row.engine).add(row.point_id, run_s, row.took_s)

    def expected(self, engine: str, point_id: str, run_s: float) -> float | None:
        """Seconds that a point will take; None where no row of the engine says."""
        return self._of(engine).expected(point_id, run_s)

    def _of(self, engine: str) -> EngineDurations:
        if engine not in self._engines:
            found = self._engines[engine] = EngineDurations()
            rows = [row for stored in self._stores for row in stored.newest(engine, "took_s", MOST_ROWS)]
            points = {index: point for index, row in enumerate(rows) if (point := _point(row)) is not None}
            runs = dict(zip(points, closed_forms(list(points.values())), strict=True))
            for index, row in enumerate(rows):
                found.add(row.point_id, runs.get(index), row.took_s or 0.0)
        return self._engines[engine]


def _point(row: Row) -> Point | None:
    try:
        return requested_point(row)
    except ShardbenchError:
        return None  # of a model or chip that is not here
