"""``shardbench compare``: the rows of two stores, point by point."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bench.cli.args import PRINT, Key
from bench.cli.values import Number, StorePath
from bench.rows.counted import counted
from engines.core.errors import InvalidRequest

if TYPE_CHECKING:
    from bench.compare.verdicts import Comparison, Rules
    from engines.core.row import Row

SUMMARY: Final = "compare the rows of two stores; exit code 1 if a point is slower or fails now"
VERBS: Final[Mapping[str, str]] = {}
RULES: Final = (
    Key(
        "threshold",
        0.05,
        "a point is slower if its median rose significantly and by more than this fraction",
        kind=Number(minimum=0),
    ),
    Key(
        "alpha",
        0.01,
        "significance level over all points (Mann-Whitney U test with Holm's correction)",
        kind=Number(above=0, below=1),
    ),
    Key("allow_hosts", False, "also compare times of different hosts or device kinds"),
)
KEYS: Final = (
    Key("old", None, "the store to compare with", required=True, kind=StorePath()),
    Key("new", None, "the store to check", required=True, kind=StorePath()),
    *RULES,
    Key("by_process", False, "compare medians per process instead of samples, as nightly processes=3 does"),
    PRINT,
)
EXAMPLES: Final = (
    "shardbench compare old=results/before new=results/after",
    "shardbench compare old=results/nightly/2026-01-01 new=results/nightly/2026-01-02 threshold=0.1 print=json",
)
MOST_SHOWN: Final = 60


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Compare and print. Returns 1 if a point is slower or fails now, 3 if the stores share no point, else 0."""
    del verb
    from bench.compare.verdicts import compare

    rules = replace(rules_of(settings), by_process=settings["by_process"])
    found = compare(rows_of("old", settings["old"]), rows_of("new", settings["new"]), rules)
    if settings["print"] == "json":
        print(json.dumps(plain(found)))
    else:
        show(found)
    if not found.changes:
        print("shardbench: nothing was compared: no point is in both stores", file=sys.stderr)
        return 3
    return 1 if found.regressions else 0


def rules_of(settings: Mapping[str, Any]) -> "Rules":
    """The rules given by the keys :data:`RULES`."""
    from bench.compare.verdicts import Rules

    return Rules(**{key.name: settings[key.name] for key in RULES})


def rows_of(key: str, folder: Any) -> "list[Row]":
    """The rows of the store ``folder``, the value of ``key``.

    Raises:
        ShardbenchError: the store is empty or a file is broken.
    """
    from bench.rows.store import Store

    rows = Store(str(folder)).load()
    if not rows:
        raise InvalidRequest(key, folder, "holds no rows", "use a results_dir of shardbench run")
    return rows


def plain(found: "Comparison") -> dict[str, Any]:
    """The comparison as plain values, ready for JSON."""
    from bench.compare.verdicts import label, to_dict

    return {
        "regressions": len(found.regressions),
        "points": [to_dict(change) for change in found.changes],
        "only_old": [{"point_id": row.point_id, "point": label(row)} for row in found.only_old],
        "only_new": [{"point_id": row.point_id, "point": label(row)} for row in found.only_new],
    }


def show(found: "Comparison") -> None:
    """Print a table of the points that differ, the worst first, and the number of points by verdict."""
    from bench.compare.verdicts import NOT_SIGNIFICANT, label
    from bench.rows.metrics import METRICS
    from bench.run import terminal

    shown = [change for change in found.changes if change.verdict != "same" or change.reason == NOT_SIGNIFICANT]
    console = terminal.console()
    if shown:
        table = terminal.table()
        table.add_column("verdict", no_wrap=True)
        table.add_column("point", overflow="fold", ratio=2)
        for heading in ("old ms", "new ms", "new/old", "interval", "p"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("note", overflow="fold", ratio=1)
        median = METRICS["median"]
        for change in shown[:MOST_SHOWN]:
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
    if len(shown) > MOST_SHOWN:
        console.print(f"and {len(shown) - MOST_SHOWN} more; print=json shows all")
    for side, rows in (("old", found.only_old), ("new", found.only_new)):
        for row in rows[:MOST_SHOWN]:
            console.print(f"only {side}: {label(row)} ({row.source})", overflow="fold")
        if len(rows) > MOST_SHOWN:
            console.print(f"only {side}: {len(rows) - MOST_SHOWN} more; print=json shows all")
    counts: dict[str, int] = {}
    for change in found.changes:
        counts[change.verdict] = counts.get(change.verdict, 0) + 1
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "none"
    console.print(f"{counted(len(found.changes), 'point')} in both stores: {summary}")
