"""The data of the page History: every point over all nights, with its steps."""

from typing import Any

from bench.compare.nights.changes import what_changed
from bench.compare.nights.history import History
from bench.compare.nights.judge import Judged
from bench.compare.nights.summary import machine_text
from bench.dashboard.judged import Intervals, JudgedNights


def data(judged: JudgedNights) -> dict[str, Any]:
    """``points`` in the order in which they were first asked, each with its answers as parallel lists.

    Returns:
        ``days``: the nights' dates, ``by_date`` whether they are dates of rows; of each point: ``machine`` (null where
        none was measured), ``rows`` (places in the table of rows), ``days`` (places in ``days``), ``times`` in seconds
        (null where there is none), ``low`` and ``high`` (their 95% intervals, null where none is known), ``steps``
        (``at`` and ``confirmed`` are places in its own lists) and ``told`` (what is said of it on the last night).
        Where ``times`` is absent they are the rows' latencies; without any interval, ``low`` and ``high`` are.
    """
    places = {day: place for place, day in enumerate(judged.days)}
    intervals = Intervals(each.history for each in judged.verdict.points)
    points = [_point(each, judged, places, intervals) for each in judged.verdict.points]
    return {"days": judged.days, "by_date": judged.by_date, "points": points}


def _point(each: Judged, judged: JudgedNights, days: dict[str, int], intervals: Intervals) -> dict[str, Any]:
    history, answers = each.history, each.history.answers
    found: dict[str, Any] = {
        "rows": [judged.place(answer.row) for answer in answers],
        "days": [days[answer.day] for answer in answers],
    }
    if history.machine is not None:
        found["machine"] = machine_text(history.machine)
    if any(answer.time_s != answer.row.latency_s for answer in answers):
        found["times"] = [answer.time_s for answer in answers]
    ends = [intervals.of(history, answer) for answer in answers]
    if any(end is not None for end in ends):
        found["low"] = [None if end is None else end[0] for end in ends]
        found["high"] = [None if end is None else end[1] for end in ends]
    if any(len(answer.times_s) > 1 for answer in answers):
        found["processes"] = [len(answer.times_s) for answer in answers]
    if each.changes:
        found["steps"] = steps(history, each)
    if each.findings:
        found["told"] = [
            {"kind": told.kind, "since": days[told.since], "ratio": told.ratio, "reason": told.reason}
            for told in each.findings
        ]
    return found


def steps(history: History, judged: Judged) -> list[dict[str, Any]]:
    """The steps of a point as plain values, with what changed at each."""
    return [
        {
            "at": each.first,
            "confirmed": each.confirmed,
            "ratio": each.ratio,
            "noise": each.noise,
            "changed": what_changed(history, each.first),
        }
        for each in judged.changes
    ]
