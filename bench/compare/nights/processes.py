"""How many processes a night needs, by what they differ from each other."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from bench.compare.nights.steps import MEDIAN_VARIANCE, StepRules, noise_between, noise_for
from bench.compare.verdicts import newest
from engines.core.row import Row


def more_needed(rows: Sequence[Row], *, least: int, most: int, step: float, rules: StepRules) -> bool:
    """Whether another process is to measure the points of tonight's ``rows`` (oldest first).

    ``least`` measure each, and up to ``most`` where those of tonight differ by so much that two nights would not show a
    ``step`` (a fraction). Points that could not be measured need none.
    """
    times = processes_tonight(rows)
    done = min(map(len, times), default=math.inf)
    if done < least:
        return True
    return done < most and noise_tonight(times) > noise_for(step, rules)


def processes_tonight(rows: Sequence[Row]) -> list[list[float]]:
    """The valid times of each measured point, one a process, of the program that ran last."""
    present = {_key(row) for row in newest(rows).values()}
    counts = Counter(_key(row) for row in rows if _measured(row) and _key(row) in present)
    return [[row.latency_s or 0.0 for row in rows if _measured(row) and _key(row) == key] for key in counts]


def noise_tonight(times: Iterable[Sequence[float]]) -> float:
    """What the night's medians are uncertain by: a standard deviation of log times, of the noisier half of the points.

    From differences between neighbours in time; 0 where there are none.
    """
    found = []
    for each in times:
        noise, freedom = noise_between([math.log(time) for time in each])
        if freedom:
            found.append(noise * math.sqrt(MEDIAN_VARIANCE / len(each)))
    found.sort()
    return found[len(found) // 2] if found else 0.0


def _measured(row: Row) -> bool:
    return row.source == "measured" and row.valid and row.latency_s is not None


def _key(row: Row) -> tuple[Any, ...]:
    return row.point_id, row.program_id
