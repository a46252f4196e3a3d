"""What ``shardbench calibrate data=…`` prints and writes."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.calibrate.own import OwnFit, own_fit
from bench.calibrate.rows import own_rows
from bench.calibrate.runtime_file import content_of, write
from bench.rows.error_stats import ErrorStats
from bench.validate.data import read_data
from bench.validate.unused import unused_lines
from engines.core.text import one_line, significant


def calibrate_own(settings: Mapping[str, Any]) -> int:
    """Fit the constants of a user's chip and runtime, print them, write them if ``out`` is set. Returns 0.

    Raises:
        InvalidRequest: the data holds too few rows of one chip and runtime, or ``out`` cannot be written.
    """
    data = settings["data"]
    reading = read_data(data, "analytic", settings["tokens"])
    for line in unused_lines(reading.unused):
        print(line, file=sys.stderr)
    rows = own_rows(reading.cases, settings["hw"], settings["runtime"])
    for each in rows.contradicting:
        times = ", ".join(f"{case.place} {case.latency_s:.4g} s" for case in each.cases)
        print(one_line(f"left out: rows of one point are {each.spread:.0%} apart: {times}"), file=sys.stderr)
    found = own_fit(rows)
    name = Path(settings["out"]).stem if settings["out"] else "mine"
    content = content_of(found, name, ", ".join(data))
    if settings["out"]:
        write(Path(settings["out"]), content)
        print(f"wrote {settings['out']}", file=sys.stderr)
    if settings["print"] == "json":
        print(json.dumps({**content, "errors": _errors(found)}))
    else:
        _print(found, content)
    return 0


def _errors(found: OwnFit) -> dict[str, Any]:
    return {
        "rows": len(found.rows.cases),
        "contradicting": [[case.place for case in each.cases] for each in found.rows.contradicting],
        "before": _figures(found.before),
        "held_out": _figures(found.held_out),
        "in_fit": _figures(found.after),
        "held_out_by": found.rows.by or None,
        "helps": found.helps,
        "groups": {
            group: {"before": _figures(before), "held_out": _figures(after)}
            for group, (before, after) in found.by_group.items()
        },
    }


def _figures(stats: ErrorStats | None) -> dict[str, Any] | None:
    return None if stats is None else {**stats.to_dict(), "rows": stats.n}


def _print(found: OwnFit, content: Mapping[str, Any]) -> None:
    from bench.run import terminal

    rows = found.rows
    console = terminal.console()
    table = terminal.table(title=f"constants of {rows.chip.name} with {rows.runtime.name}, from {len(rows.cases)} rows")
    for heading in ("constant", "value", "before", "uncertainty", "set by"):
        table.add_column(heading, overflow="fold")
    for name, about in {**content["on_chip"][rows.chip.name], **content["constants"]}.items():
        if not about["set_by"]:
            continue
        shares = ", ".join(f"{group} {share:.0%}" for group, share in about["set_by"].items())
        table.add_row(
            name, significant(about["value"], 4), significant(about["prior"], 4), f"±{about['uncertainty']:.0%}", shares
        )
    console.print(table)
    if found.by_group:
        errors = terminal.table(title=f"mean error of rows held out, by {rows.by}")
        for heading in (rows.by, "rows", "before", "held out"):
            errors.add_column(heading, justify="left" if heading == rows.by else "right", overflow="fold")
        for group, (before, after) in found.by_group.items():
            errors.add_row(group, str(after.n if after else 0), _mean(before), _mean(after))
        console.print(errors)
    console.print(_verdict(found))


def _mean(stats: ErrorStats | None) -> str:
    return "" if stats is None else f"{stats.mean:.1%}"


def _verdict(found: OwnFit) -> str:
    """One sentence: whether the rows make predictions better."""
    start = f"mean error {_mean(found.before)} with the constants that are shipped, "
    fitted = f"{_mean(found.after)} in the fit"
    if found.helps is None:
        return f"{start}{fitted}; all rows are of one group, so nothing could be held out"
    held_out = f"{start}{_mean(found.held_out)} on rows held out of the fit by {found.rows.by}, {fitted}"
    return held_out if found.helps else f"{held_out}: these rows do not make other predictions better, use more of them"
