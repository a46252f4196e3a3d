"""``shardbench compare``: two stores, point by point."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bench.cli.args import PRINT, Key
from engines.core.errors import InvalidRequest, ShardbenchError

if TYPE_CHECKING:
    from bench.compare.verdicts import Comparison, Rules
    from engines.core.row import Row

SUMMARY: Final = "compare the rows of two stores; exit code 1 if a point is slower or broken"
VERBS: Final[Mapping[str, str]] = {}
RULES: Final = (
    Key("threshold", 0.05, "a point is slower if its median rose by more than this fraction, and significantly"),
    Key("alpha", 0.01, "significance over all points together (Mann-Whitney, corrected after Holm)"),
    Key("allow_hosts", False, "also compare times of different hosts or device kinds"),
)
KEYS: Final = (
    Key("old", None, "the store to compare with", required=True),
    Key("new", None, "the store to judge", required=True),
    *RULES,
    Key("by_process", False, "compare the medians of the processes that measured a point, as nightly processes=3 does"),
    PRINT,
)
EXAMPLES: Final = (
    "shardbench compare old=results/before new=results/after",
    "shardbench compare old=results/nightly/2026-01-01 new=results/nightly/2026-01-02 threshold=0.1 print=json",
)
MOST_SHOWN: Final = 60


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Compare and print. Returns 1 if a point is slower or broken."""
    del verb
    from bench.compare.verdicts import compare

    by_process = settings["by_process"]
    if not isinstance(by_process, bool):
        raise InvalidRequest("by_process", by_process, "must be true or false", "use by_process=true")
    rules = replace(rules_of(settings), by_process=by_process)
    found = compare(rows_of("old", settings["old"]), rows_of("new", settings["new"]), rules)
    if settings["print"] == "json":
        print(json.dumps(plain(found)))
    else:
        show(found)
    return 1 if found.regressions else 0


def rules_of(settings: Mapping[str, Any]) -> "Rules":
    """The rules that the keys :data:`RULES` state.

    Raises:
        InvalidRequest: a value can be no rule's.
    """
    from bench.compare.verdicts import Rules

    threshold, alpha, allow_hosts = (settings[key.name] for key in RULES)
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 <= threshold < float("inf"):
        raise InvalidRequest("threshold", threshold, "must be a fraction ≥ 0", "0.05 is 5%")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < 1:
        raise InvalidRequest("alpha", alpha, "must be between 0 and 1", "use a significance level such as 0.01")
    if not isinstance(allow_hosts, bool):
        raise InvalidRequest("allow_hosts", allow_hosts, "must be true or false", "use allow_hosts=true")
    return Rules(threshold=threshold, alpha=alpha, allow_hosts=allow_hosts)


def rows_of(key: str, folder: Any) -> "list[Row]":
    """The rows of a store that must not be empty.

    Raises:
        ShardbenchError: it is empty or broken.
    """
    from bench.rows.store import Store

    rows = Store(str(folder)).load()
    if not rows:
        raise ShardbenchError(f"{key}={folder}: holds no rows; name a folder that shardbench run wrote to")
    return rows


def plain(found: "Comparison") -> dict[str, Any]:
    """The comparison as plain values, ready for JSON."""
    from bench.compare.verdicts import label, to_dict

    return {
        "regressions": len(found.regressions),
        "points": [to_dict(change) for change in found.changes],
        "only_old": [{"point_id": row.point_id, "question": label(row)} for row in found.only_old],
        "only_new": [{"point_id": row.point_id, "question": label(row)} for row in found.only_new],
    }


def show(found: "Comparison") -> None:
    """Print what differs as a table, the worst first, and count the rest."""
    from rich.console import Console
    from rich.table import Table

    from bench.compare.verdicts import NOT_SIGNIFICANT, label
    from bench.rows.metrics import METRICS

    told = [change for change in found.changes if change.verdict != "same" or change.reason == NOT_SIGNIFICANT]
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    if told:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("verdict", no_wrap=True)
        table.add_column("point", overflow="fold", ratio=2)
        for heading in ("old ms", "new ms", "new/old", "interval", "p"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("note", overflow="fold", ratio=1)
        median = METRICS["median"]
        for change in told[:MOST_SHOWN]:
            ratio = change.ratio
            table.add_row(
                change.verdict,
                f"{change.label} ({change.new.source})",
                median.show(change.old.latency_s),
                median.show(change.new.latency_s),
                "" if ratio is None else f"{ratio.value:.3f}",
                "" if ratio is None or ratio.ci_low == ratio.ci_high else f"{ratio.ci_low:.3f} to {ratio.ci_high:.3f}",
                "" if change.p_value is None else f"{change.p_value:.1g}",
                change.reason,
            )
        console.print(table)
    if len(told) > MOST_SHOWN:
        console.print(f"and {len(told) - MOST_SHOWN} more; print=json tells all")
    for side, rows in (("old", found.only_old), ("new", found.only_new)):
        for row in rows[:MOST_SHOWN]:
            console.print(f"only {side}: {label(row)} ({row.source})", overflow="fold")
        if len(rows) > MOST_SHOWN:
            console.print(f"only {side}: {len(rows) - MOST_SHOWN} more; print=json tells all")
    counts: dict[str, int] = {}
    for change in found.changes:
        counts[change.verdict] = counts.get(change.verdict, 0) + 1
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "none"
    console.print(f"{len(found.changes)} points on both sides: {summary}")
