"""Rows that answer one question of one system with different times."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.validate.case import Case
from engines.core.point import Point

MOST_APART: Final = 0.05
"""Times that differ by more are not one time measured twice."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Cases of the same point and system whose times are further apart than :data:`MOST_APART`, the fastest first."""

    cases: Sequence[Case]

    @property
    def spread(self) -> float:
        """The slowest time over the fastest, minus 1."""
        times = [case.latency_s for case in self.cases if case.latency_s is not None]
        return max(times) / min(times) - 1


def contradictions(cases: Sequence[Case]) -> list[Contradiction]:
    """Every contradiction among the cases, the widest first. Cases that died out of memory have no time."""
    groups: dict[tuple[Point, str], list[Case]] = defaultdict(list)
    for case in cases:
        if case.latency_s is not None:
            groups[case.point, case.system].append(case)
    several = [
        Contradiction(sorted(group, key=lambda each: each.latency_s or 0)) for group in groups.values() if group[1:]
    ]
    return sorted((each for each in several if each.spread > MOST_APART), key=lambda each: -each.spread)
