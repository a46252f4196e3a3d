"""Rows of the same point over time, and their steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.compare.verdicts import (
    REGRESSIONS,
    Change,
    Processes,
    Rules,
    judge,
    judge_processes,
    label,
    question,
    settled,
)
from bench.rows.labels import SOURCES
from bench.rows.store import Store
from engines.core.row import Row

MOST_STEPS_BACK: Final = 30
"""Nights before the last in which steps are searched for, for each point."""


@dataclass(slots=True)
class Series:
    """The answers to one question, oldest first. ``steps`` has the change at every row that differs from its last.

    ``processes`` measured each answer's point on its day.
    """

    rows: Sequence[Row]
    processes: Sequence[Sequence[Row]]
    steps: dict[int, Change] = field(default_factory=dict)

    @property
    def newest(self) -> Row:
        """The latest row."""
        return self.rows[-1]

    @property
    def label(self) -> str:
        """The point in words."""
        return label(self.newest)

    @property
    def latest_step(self) -> Change | None:
        """The change between the last two rows, if there is one."""
        return self.steps.get(len(self.rows) - 1)

    @property
    def regressed(self) -> bool:
        """Whether the last row is worse than the one before."""
        return self.latest_step is not None and self.latest_step.verdict in REGRESSIONS


def read_rows(folder: Path) -> list[Row]:
    """The rows of a store and of all stores in folders below it, each once, oldest first.

    Raises:
        ShardbenchError: a file is broken; names it.
    """
    folders = sorted({path.parent.parent for path in folder.glob("**/rows/*.jsonl")})
    entries = [entry for each in folders or [folder] for entry in Store(each).entries()[0]]
    entries.sort(key=lambda entry: entry.moment)
    return list({(entry.row.point_id, entry.row.created_at): entry.row for entry in entries}.values())


def histories(rows: Iterable[Row], rules: Rules) -> list[Series]:
    """One series a question, settled: those that became worse first, then by kind of evidence, longest first."""
    rows = list(rows)
    processes = Processes(rows)
    by_question: dict[tuple[Any, ...], list[Row]] = {}
    for row in settled(rows):
        by_question.setdefault(question(row), []).append(row)
    series = [Series(found, [processes.of(row) for row in found]) for found in by_question.values()]
    # The last step of every series is one family of tests, as in `shardbench compare`; those before are another.
    _find_steps([(each, len(each.rows) - 1) for each in series if len(each.rows) > 1], rules)
    series.sort(key=lambda each: (not each.regressed, SOURCES.index(each.newest.source), -len(each.rows), each.label))
    return series


def find_earlier_steps(series: Sequence[Series], rules: Rules) -> None:
    """Look for steps before the last one too, so far as a chart shows them."""
    places = [(each, place) for each in series for place in range(1, len(each.rows) - 1)[-MOST_STEPS_BACK:]]
    _find_steps(places, rules)


def _find_steps(places: Sequence[tuple[Series, int]], rules: Rules) -> None:
    if rules.by_process:
        changes = judge_processes([(each.processes[place - 1], each.processes[place]) for each, place in places], rules)
    else:
        changes = judge([(each.rows[place - 1], each.rows[place]) for each, place in places], rules)
    for (each, place), change in zip(places, changes, strict=True):
        if change.verdict not in ("same", "not judged"):
            each.steps[place] = change
