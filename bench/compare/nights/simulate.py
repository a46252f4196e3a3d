"""Nights as a machine would have them: drawn from processes that measured the same programs there one after the other.

What is drawn is a place in their order; the processes from there on are the night's, so that those of one night share
what else the machine did, as they do on a true one. Nothing is assumed of the law of the noise.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.compare.nights.history import time_of_processes
from bench.compare.nights.steps import StepRules, common_noise, step_confirmed
from bench.compare.verdicts import question
from engines.core.row import Row


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
    drawn = [
        _night(times, plan.processes, int(generator.integers(len(times))))
        for times in points
        for _ in range(10 * plan.nights)
    ]
    return common_noise(np.reshape(drawn, (-1, plan.nights)).tolist())


def simulate(
    times: Sequence[float], common: float, rules: StepRules, plan: Plan, generator: np.random.Generator
) -> Simulated:
    """A history of a point whose processes took ``times`` (s), judged night by night as ``shardbench nightly`` does."""
    logs, confirmed, begin = list[float](), list[int](), 0
    for night in range(plan.nights):
        slower = math.log1p(plan.step) if night >= plan.at else 0.0
        start = int(generator.integers(len(times)))
        for processes in range(plan.processes, plan.processes + plan.confirm + 1):
            tonight = slower + _night(times, processes, start)
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


def _night(times: Sequence[float], processes: int, start: int) -> float:
    """The log time of a night of so many processes, those from place ``start`` on."""
    return math.log(time_of_processes([times[(start + each) % len(times)] for each in range(processes)]))
