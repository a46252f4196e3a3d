"""Nights as a machine would have them: drawn from processes that measured the same programs there one after the other.

Drawn are places in their order, and each gives three processes in a row, which share what else the machine did, as
those of a true night do (the moving block bootstrap of Künsch 1989). Nothing is assumed of the law of the noise.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bench.compare.nights.history import time_of_processes
from bench.compare.nights.steps import StepRules, common_noise, step_confirmed
from bench.compare.verdicts import question
from engines.core.row import Row

IN_A_ROW: Final = 3
"""Processes of a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``nights`` of ``processes`` each, and up to ``confirm`` more while a point is suspected or slower.

    From night ``at`` on a program is slower by the fraction ``step``.
    """

    nights: int = 60
    at: int = 40
    step: float = 0.0
    processes: int = 3
    confirm: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """The log times of a point's nights, and the night that confirmed each step found as they came."""

    logs: Sequence[float]
    confirmed: Sequence[int]


def processes_of(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[float]]:
    """The time (s) of every valid measurement of a point, in the order in which they were made."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for row in sorted(rows, key=lambda row: row.created_at):
        if row.source == "measured" and row.valid and row.latency_s is not None:
            found.setdefault(question(row), []).append(row.latency_s)
    return found


def noise_of(points: Iterable[Sequence[float]], plan: Plan, generator: np.random.Generator) -> float:
    """:func:`common_noise` of nights of these points (s), as a machine's history has it; from ten histories each."""
    logs = [
        [_log_time(_drawn(times, plan.processes, generator)) for _ in range(plan.nights)]
        for times in points
        for _ in range(10)
    ]
    return common_noise(logs)


def simulate(
    times: Sequence[float], common: float, rules: StepRules, plan: Plan, generator: np.random.Generator
) -> Simulated:
    """A history of a point whose processes took ``times`` (s), judged night by night as ``shardbench nightly`` does."""
    logs, confirmed, begin = list[float](), list[int](), 0
    for night in range(plan.nights):
        slower = math.log1p(plan.step) if night >= plan.at else 0.0
        drawn = _drawn(times, plan.processes + plan.confirm, generator)
        for processes in range(plan.processes, len(drawn) + 1):
            tonight = slower + _log_time(drawn[:processes])
            judged = [*logs, tonight]
            step = step_confirmed(judged, begin, common, rules)
            suspected = step or step_confirmed([*judged, tonight], begin, common, rules)
            if suspected is None or suspected.ratio <= 1:
                break
        logs = judged
        if step is not None:
            confirmed.append(night)
            begin = step.first
    return Simulated(logs=logs, confirmed=confirmed)


def _drawn(times: Sequence[float], processes: int, generator: np.random.Generator) -> list[float]:
    """The times of so many processes, in blocks of :data:`IN_A_ROW`; the first process follows the last."""
    places = generator.integers(len(times), size=math.ceil(processes / IN_A_ROW))
    found = [times[(place + each) % len(times)] for place in places.tolist() for each in range(IN_A_ROW)]
    return found[:processes]


def _log_time(times: Sequence[float]) -> float:
    return math.log(time_of_processes(times))
