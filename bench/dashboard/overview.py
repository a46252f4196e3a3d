"""The data of the page Overview: the last night, what is worse first, and what was asked at all."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal

from bench.compare.nights.history import History, Machine
from bench.compare.nights.judge import Finding, Verdict
from bench.compare.nights.summary import headline, machine_text
from bench.dashboard.columns import outcome
from bench.dashboard.judged import JudgedNights
from bench.rows.labels import SOURCES

State = Literal["worse", "unknown", "good"]
MOST_FACTS: Final = 12
"""Versions told of a machine."""


def data(judged: JudgedNights) -> dict[str, Any]:
    """The verdict as plain values: ``findings``, the worst first; points that are new, missing or gone; machines.

    ``state`` is good only where points were compared and none of them, nor of any machine, is left in doubt. A point is
    ``{row, point}``: its places among the rows and the histories.
    """
    verdict = judged.verdict
    places = {id(each.history): place for place, each in enumerate(verdict.points)}

    def point(history: History) -> dict[str, Any]:
        row = judged.place(history.last.row)
        return {"row": row, "point": places[id(history)]}

    return {
        "day": verdict.day,
        "nights": verdict.nights,
        "by_date": judged.by_date,
        "headline": headline(verdict),
        "state": state(verdict),
        "compared": verdict.judged,
        "worse": len(verdict.worse),
        "young": len(verdict.young),
        "findings": [
            {"label": each.history.label, **point(each.history), **_finding(each)} for each in verdict.findings
        ],
        "new": [point(each) for each in verdict.first],
        "missing": [point(each) for each in verdict.missing],
        "gone": _gone(verdict, judged.days),
        "machines": [_machine(machine, verdict) for machine in _machines(verdict)],
        "coverage": _coverage(verdict),
    }


def state(verdict: Verdict) -> State:
    """Whether the night may be shown as good."""
    if verdict.worse:
        return "worse"
    doubtful = verdict.not_compared or verdict.of("not judged", "suspected", "still slower", "still broken")
    return "unknown" if not verdict.judged or doubtful else "good"


def _finding(each: Finding) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "time": each.history.last.time_s,
        "ratio": each.ratio,
        "since": each.since,
        "reason": each.reason,
        "changed": list(each.changed),
        "machine": None if each.history.machine is None else machine_text(each.history.machine),
    }


def _gone(verdict: Verdict, days: Sequence[str]) -> list[dict[str, Any]]:
    """Points that the last two nights did not answer, by the last night that did."""
    recent = set(days[-2:])
    last = Counter(each.history.last.day for each in verdict.points)
    return [{"day": day, "points": count} for day, count in sorted(last.items(), reverse=True) if day not in recent]


def _machines(verdict: Verdict) -> list[Machine]:
    """The machines of all nights, those of the last night first."""
    last: dict[Machine, str] = {}
    for each in verdict.points:
        if each.history.machine is not None:
            last[each.history.machine] = max(last.get(each.history.machine, ""), each.history.last.day)
    return sorted(last, key=lambda machine: (last[machine] != verdict.day, machine))


def _machine(machine: Machine, verdict: Verdict) -> dict[str, Any]:
    mine = [each.history for each in verdict.points if each.history.machine == machine]
    newest = max(mine, key=lambda each: (each.last.day, each.last.row.created_at)).last
    return {
        "machine": machine_text(machine),
        "last": newest.day,
        "nights": len({answer.day for each in mine for answer in each.answers}),
        "points": sum(each.last.day == newest.day for each in mine),
        "smallest": verdict.smallest.get(machine),
        "compared": newest.day == verdict.day and machine not in verdict.not_compared,
        "git_sha": newest.row.git_sha,
        "git_dirty": newest.row.git_dirty,
        "versions": dict(list(newest.row.versions.items())[:MOST_FACTS]),
    }


def _coverage(verdict: Verdict) -> list[dict[str, Any]]:
    """What the last night answered: points by evidence, engine and chip, with what became of them."""
    found: dict[tuple[str, str, str], Counter[str]] = {}
    for each in verdict.points:
        row = each.history.last.row
        if each.history.last.day == verdict.day:
            found.setdefault((row.source, row.engine, row.hw), Counter())[outcome(row)] += 1
    ordered = sorted(found.items(), key=lambda entry: (SOURCES.index(entry[0][0]), *entry[0][1:]))
    return [
        {"source": source, "engine": engine, "hw": hw, "points": counts.total(), "outcomes": dict(counts)}
        for (source, engine, hw), counts in ordered
    ]
