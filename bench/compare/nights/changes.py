"""The steps of one point's history, whatever its evidence, and what is still worse than it was."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from bench.compare.nights.history import History, Machine
from bench.compare.nights.steps import StepRules, find_steps
from bench.compare.verdicts import EXACT, is_wrong
from bench.rows.timed_by import timing_change
from engines.core.row import Row

MOST_CHANGES: Final = 4
"""Facts told about what changed with a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """From the answer at ``first`` on times are ``ratio`` times what they were; the one at ``confirmed`` says so.

    Both are indices of :attr:`History.answers`. ``noise`` is the standard deviation between nights, of log times;
    0 of times that are computed.
    """

    first: int
    confirmed: int
    ratio: float
    noise: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Worse:
    """Since the answer at ``first`` the point has been worse than before, and is. ``ratio`` is now over then."""

    first: int
    ratio: float


def changes_of(history: History, noise: dict[Machine, float], rules: StepRules) -> list[Change]:
    """Every step of a history, oldest first.

    Measured times by :mod:`steps`, with the noise that their machine has; of computed or published ones any difference
    is a step, on the night itself.
    """
    places = [place for place, answer in enumerate(history.answers) if answer.time_s is not None]
    times = history.times_s
    if history.machine is not None:
        found = find_steps(times, noise.get(history.machine, math.nan), rules)
        return [
            Change(first=places[each.first], confirmed=places[each.confirmed], ratio=each.ratio, noise=each.noise)
            for each in found
        ]
    ratios = [now / before for before, now in pairwise(times)]
    return [
        Change(first=place, confirmed=place, ratio=ratio)
        for place, ratio in zip(places[1:], ratios, strict=True)
        if abs(ratio - 1) > EXACT
    ]


def still_slower(changes: Sequence[Change], *, beyond: float, back: float) -> Worse | None:
    """The first step after which no level has come back to the one before it, where now is slower than that.

    Now is slower if it is so by more than ``beyond``; a level has come back within ``back``; both are fractions. So
    several steps in a row, as a drift makes them, are one regression, since its first night and by its whole ratio.
    """
    levels = [0.0]  # log times, relative to the first level
    for each in changes:
        levels.append(levels[-1] + math.log(each.ratio))
    found, least = None, math.inf
    for place in range(len(changes), 0, -1):
        least, before = min(least, levels[place]), levels[place - 1]
        if least > before + math.log1p(back) and levels[-1] > before + math.log1p(beyond):
            found = Worse(first=changes[place - 1].first, ratio=math.exp(levels[-1] - before))
    return found


def is_broken(row: Row) -> bool:
    """Whether the row has no answer, or a wrong one."""
    return row.status != "ok" or is_wrong(row)


def broken_since(history: History) -> int | None:
    """The place of the first of the last answers that are all broken, where one before them was not; else None."""
    place = len(history.answers)
    while place and is_broken(history.answers[place - 1].row):
        place -= 1
    return place if 0 < place < len(history.answers) else None


def what_changed(history: History, place: int) -> list[str]:
    """What differs between the answers at ``place`` and before it: commit, program, versions."""
    before, now = history.answers[place - 1].row, history.answers[place].row
    found = []
    if before.git_sha != now.git_sha:
        found.append(f"commit {(before.git_sha or 'unknown')[:12]} → {(now.git_sha or 'unknown')[:12]}")
    versions = sorted({*(before.versions or {}), *(now.versions or {})})
    for name in versions:
        then, since = (row.versions.get(name) if row.versions else None for row in (before, now))
        if then != since:
            found.append(f"{name} {then} → {since}")
    timing = timing_change(before, now)
    if timing is not None:
        found.insert(0, timing)
    if before.program_id != now.program_id and not found:
        found.append("another program")
    if len(found) > MOST_CHANGES:
        found = [*found[:MOST_CHANGES], f"and {len(found) - MOST_CHANGES} more"]
    return found
