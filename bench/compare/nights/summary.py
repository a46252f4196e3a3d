"""A night's verdict as Markdown, as plain values, and as the JSON that github-action-benchmark reads."""

from collections.abc import Sequence
from typing import Any, Final

from bench.compare.nights.history import History, Machine
from bench.compare.nights.judge import Finding, Kind, Verdict
from bench.compare.nights.read import Night
from bench.compare.nights.steps import LEAST_NIGHTS
from bench.rows.counted import counted
from engines.core.row import POINT_FIELDS

MOST_SHOWN: Final = 40
HEADINGS: Final[dict[Kind, str]] = {
    "broken": "Broken",
    "slower": "Slower",
    "suspected": "Suspected: slower this night alone",
    "not judged": "Not judged",
    "still broken": "Still broken",
    "still slower": "Still slower than before an earlier step",
    "mended": "Mended",
    "faster": "Faster",
    "changed": "Changed by less than the threshold",
}
COUNTED: Final[tuple[Kind, ...]] = ("suspected", "still broken", "still slower", "not judged")
"""Findings that the headline counts beside those that are worse."""


def machine_text(machine: Machine) -> str:
    """Host and device kind as words."""
    return " ".join(filter(None, machine)) or "a machine without a name"


def headline(verdict: Verdict) -> str:
    """The night in one sentence."""
    if verdict.nights == 1:
        return f"first night: {counted(len(verdict.first), 'point')} and nothing to compare with"
    if not verdict.judged and verdict.young and not verdict.findings:
        most = max(len(each.timed) for each in verdict.young)
        return f"too early to compare: a step needs {LEAST_NIGHTS} nights, and no point has more than {most}"
    if verdict.compared_nothing:
        return f"nothing was compared: none of {counted(_asked(verdict), 'point')} has an earlier night that counts"
    worse = len(verdict.worse)
    told = f"{counted(worse, 'point')} worse" if worse else "no point worse"
    parts = [f"{told} of {verdict.judged} compared"] if verdict.judged or worse else ["no point compared"]
    for kind in COUNTED:
        number = len(verdict.of(kind))
        parts += [f"{number} {kind}"] if number else []
    parts += [f"{len(verdict.young)} too early to compare"] if verdict.young else []
    parts += [f"{len(verdict.missing)} missing"] if verdict.missing else []
    parts += [f"nothing compared on {machine_text(each)}" for each in verdict.not_compared]
    return ", ".join(parts)


def markdown(verdict: Verdict) -> str:
    """The night as a page: regressions first, then what else changed, what is new, and what can be found at all."""
    lines = [f"# Night of {verdict.day}", "", f"{headline(verdict)[0].upper()}{headline(verdict)[1:]}.", ""]
    for kind, heading in HEADINGS.items():
        found = verdict.of(kind)
        if not found:
            continue
        lines += [f"## {heading}", "", "| point | new/old | since | why | what changed |", "|---|---:|---|---|---|"]
        lines += [_line(each) for each in found[:MOST_SHOWN]]
        lines += [f"\nAnd {len(found) - MOST_SHOWN} more."] if len(found) > MOST_SHOWN else []
        lines.append("")
    for heading, points in (
        ("New points", verdict.first),
        ("Points of the night before that are missing", verdict.missing),
    ):
        if points and verdict.nights > 1:
            lines += [f"## {heading}", "", *_points(points), ""]
    if verdict.damaged:
        lines += ["## Damaged rows", "", *(f"- {_escaped(each)}" for each in verdict.damaged[:MOST_SHOWN]), ""]
    if verdict.smallest:
        lines += ["## What two nights can show", ""]
        lines += [
            f"- {_escaped(machine_text(machine))}: steps of {size:.1%} and more, with a probability of 95%"
            for machine, size in sorted(verdict.smallest.items())
        ]
        lines.append("")
    return "\n".join(lines)


def plain(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain values, ready for JSON; times in seconds."""
    return {
        "day": verdict.day,
        "nights": verdict.nights,
        "judged": verdict.judged,
        "too_early": len(verdict.young),
        "not_compared": [machine_text(each) for each in verdict.not_compared],
        "regressions": len(verdict.worse),
        "headline": headline(verdict),
        "findings": [_plain(each) for each in verdict.findings],
        "first": [each.label for each in verdict.first],
        "missing": [each.label for each in verdict.missing],
        "smallest_step": {machine_text(machine): size for machine, size in verdict.smallest.items()},
        "damaged": list(verdict.damaged),
    }


def action_benchmark(night: Night, histories: Sequence[History]) -> list[dict[str, Any]]:
    """One entry a point with a time, as ``customSmallerIsBetter`` of github-action-benchmark takes them."""
    found = []
    for each in histories:
        answer = each.last
        if answer.day != night.day or answer.time_s is None:
            continue
        spread = max(answer.times_s) - min(answer.times_s)
        found.append(
            {
                "name": f"{each.label} ({answer.row.source})",
                "unit": "ms",
                "value": answer.time_s * 1e3,
                "range": f"± {spread * 1e3 / 2:.3g}",
                "extra": f"point_id {answer.row.point_id}, commit {answer.row.git_sha or 'unknown'}",
            }
        )
    return found


def _asked(verdict: Verdict) -> int:
    return len(verdict.first) + len(verdict.of("not judged"))


def _line(each: Finding) -> str:
    ratio = "" if each.ratio is None else f"{each.ratio:.3f}"
    point = f"{each.history.label} ({each.history.last.row.source})"
    cells = (point, ratio, each.since, each.reason, "; ".join(each.changed))
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _points(points: Any) -> list[str]:
    listed = [f"- {_escaped(each.label)}" for each in points[:MOST_SHOWN]]
    return listed + ([f"- and {len(points) - MOST_SHOWN} more"] if len(points) > MOST_SHOWN else [])


def _escaped(text: str) -> str:
    """Text of rows as text in a Markdown table."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _plain(each: Finding) -> dict[str, Any]:
    row, times = each.history.last.row, each.history.times_s
    return {
        **{name: getattr(row, name) for name in POINT_FIELDS},
        "source": row.source,
        "verdict": each.kind,
        "reason": each.reason,
        "since": each.since,
        "ratio": each.ratio,
        "changed": list(each.changed),
        "times_s": times,
        "days": [answer.day for answer in each.history.timed],
        "host": row.host,
        "git_sha": row.git_sha,
    }
