"""The order in which points are answered: those that share programs together, and what takes longest first.

The longest first, because whoever works beside this process (other commands on the same store, or children of
``max_parallel``) then ends at about the same time (Graham 1969, Bounds on multiprocessing timing anomalies). The order
of rows in tables does not depend on it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from bench.measure.timing import TimingConfig
from bench.run.durations import LEAST_S, Durations, closed_forms, runs_of
from bench.run.load_engine import Answering
from bench.run.make_row import PointTask
from engines.core.engine import Runner
from engines.core.point import Point
from engines.core.row import Row

_T = TypeVar("_T")
SAME: Final = 1.5
"""Expected times within about this ratio are one: an estimate is no surer. Points of one then stay as they were asked,
as those do that take less than :data:`bench.run.durations.LEAST_S`."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A task that is to be answered: the closed form of a run, and the seconds that it sorts by."""

    run_s: float
    sorts_by_s: float


def scheduled(
    tasks: Sequence[PointTask], engine: Answering, timing: TimingConfig, durations: Durations
) -> tuple[list[PointTask], dict[str, Expected]]:
    """The tasks in the order in which to start them, and what is expected of each, by ``point_id``."""
    runs = closed_forms([task.point for task in tasks])
    expected = {}
    for task, run_s in zip(tasks, runs, strict=True):
        known = durations.expected(task.point.engine, task.point_id, run_s)
        prior = LEAST_S + (runs_of(run_s, timing) if isinstance(engine, Runner) else 0.0)
        expected[task.point_id] = Expected(run_s, prior if known is None else max(LEAST_S, known))
    groups: dict[Point, list[PointTask]] = {}
    for task in tasks:
        groups.setdefault(engine.shares_programs(task.point), []).append(task)
    steps = [_step(sum(expected[task.point_id].sorts_by_s for task in group)) for group in groups.values()]
    ordered = _longest_first(list(groups.values()), steps)
    return [task for group in ordered for task in _sorted(group, expected)], expected


def _sorted(group: Sequence[PointTask], expected: Mapping[str, Expected]) -> list[PointTask]:
    return _longest_first(group, [_step(expected[task.point_id].sorts_by_s) for task in group])


def _longest_first(items: Sequence[_T], steps: Sequence[int]) -> list[_T]:
    """The items by falling step; those of one step stay as they are."""
    return [items[index] for index in sorted(range(len(items)), key=lambda index: -steps[index])]


def _step(seconds: float) -> int:
    return round(math.log(seconds / LEAST_S, SAME))


class InOrder:
    """The order in which points were asked, whatever the order in which they are answered."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], int] = {}

    def add(self, engine: str, point_ids: Sequence[str]) -> None:
        """The next points, of an engine."""
        for point_id in point_ids:
            self._places.setdefault((engine, point_id), len(self._places))

    def sorted(self, rows: Sequence[Row]) -> list[Row]:
        """Rows as their points were asked; rows of others come last, as they come."""
        return sorted(rows, key=lambda row: self._places.get((row.engine, row.point_id), len(self._places)))
