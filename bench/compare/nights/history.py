"""The answers to one question over nights, on one machine."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.compare.nights.read import Night
from bench.compare.verdicts import label, question
from engines.core.row import Row

Machine = tuple[str, str]
"""Host and device kind."""


def time_of_processes(times_s: Sequence[float]) -> float:
    """The time of a night from that of each process: their median, of one or two the fastest."""
    return statistics.median(times_s) if len(times_s) > 2 else min(times_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One night's answer: ``row`` stands for it. ``times_s`` has a valid measurement of each process, or one time.

    ``time_s`` is their median, or with one or two processes the fastest: other load only makes a run slower. None
    where there is no valid time.
    """

    day: str
    row: Row
    times_s: Sequence[float]

    @property
    def time_s(self) -> float | None:
        """The night's time."""
        return time_of_processes(self.times_s) if self.times_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Answers to one question, one a night, oldest first; ``machine`` is None where none was measured on one."""

    machine: Machine | None
    answers: Sequence[Answer]

    @property
    def last(self) -> Answer:
        """The newest answer."""
        return self.answers[-1]

    @property
    def label(self) -> str:
        """The point in words."""
        return label(self.last.row)

    @property
    def timed(self) -> list[Answer]:
        """The answers with a time."""
        return [each for each in self.answers if each.time_s is not None]

    @property
    def times_s(self) -> list[float]:
        """The times of :attr:`timed`."""
        return [each.time_s for each in self.answers if each.time_s is not None]


def histories(nights: Sequence[Night]) -> list[History]:
    """A history for each question and machine, in the order in which they were first asked.

    Rows of evidence that is not measured belong to no machine.
    """
    found: dict[tuple[Any, ...], list[Answer]] = {}
    for night in nights:
        asked: dict[tuple[Any, ...], list[Row]] = {}
        for row in night.rows:
            asked.setdefault((question(row), _machine(row)), []).append(row)
        for key, rows in asked.items():
            found.setdefault(key, []).append(_answer(night.day, rows))
    return [History(machine=machine, answers=answers) for (_, machine), answers in found.items()]


def _machine(row: Row) -> Machine | None:
    return (row.host or "", row.device_kind or "") if row.source == "measured" else None


def _answer(day: str, rows: Sequence[Row]) -> Answer:
    """Of the rows of one night; what ran last decides which program is meant."""
    newest = rows[-1]
    if newest.source != "measured":
        return Answer(day=day, row=newest, times_s=[] if newest.latency_s is None else [newest.latency_s])
    same = [row for row in rows if row.program_id == newest.program_id and row.valid and row.latency_s is not None]
    times = sorted((row.latency_s, place) for place, row in enumerate(same) if row.latency_s is not None)
    if not times:
        return Answer(day=day, row=newest, times_s=[])
    _, middle = times[(len(times) - 1) // 2 if len(times) > 2 else 0]
    return Answer(day=day, row=same[middle], times_s=[time for time, _ in times])
