"""``shardbench validate``: compares an engine's predictions with published or measured times."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from bench.cli.args import PRINT, Key
from bench.cli.values import FilePath, ListOf
from bench.rows.counted import counted
from bench.sweep.catalog import load_group
from bench.validate.case import Reading
from bench.validate.contradictions import Contradiction, contradictions
from bench.validate.data import read_data
from bench.validate.errors import Compared, compare, figures, grouped, load_estimator
from bench.validate.peers import peers_of
from bench.validate.runtimes import asked
from bench.validate.throughput import TOKENS
from bench.validate.unused import unused_lines
from engines.core.runtime import AUTO
from engines.core.text import one_line
from engines.published.table import tables

SUMMARY: Final = "compare an engine's predictions with published or measured times"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key(
        "data",
        None,
        "a CSV file, a glob, a folder of CSV files or measured rows, a published table, or a list of these "
        "(default: all published); "
        f"published tables: {', '.join(tables())}",
        kind=ListOf(FilePath()),
    ),
    TOKENS,
    Key("engine", "analytic", "the engine to validate: analytic, compiled or published"),
    Key("runtime", None, "the runtime to predict, one of conf/runtime (default: the one that each row's system names)"),
    PRINT,
)
EXAMPLES: Final = (
    "shardbench validate",
    "shardbench validate data=paper-table2 engine=compiled",
    "shardbench validate data=mine.csv engine=analytic print=json",
    "shardbench validate data='mine/*.csv' tokens=output",
    "shardbench validate data=[a.csv,b.csv] engine=compiled",
    "shardbench validate data=results/gpu",
    "shardbench validate data=mine.csv runtime=tensorrt-llm",
)
MOST_SHOWN: Final = 10


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Compare and print. Returns 0, however large the errors are."""
    del verb
    name = settings["engine"]
    engine = load_estimator(name)
    reading = read_data(settings["data"], engine.name, settings["tokens"])
    cases = asked(reading.cases, engine, settings["runtime"])
    compared = compare(cases, engine, load_group("engine", name))
    differing = contradictions(reading.cases)
    held_out = _held_out(compared) if engine.name == "analytic" else {}
    content = {
        **figures(compared),
        "engine": engine.name,
        "groups": grouped(compared),
        "peers": [{**asdict(each), "kinds": list(each.kinds)} for each in peers_of(reading.cases)],
        "leave_one_source_out": held_out,
        "errors": [_row(each) for each in compared],
        "unused": [{"file": each.file, "line": each.line, "reason": each.reason} for each in reading.unused],
        "contradictions": [_contradiction(each) for each in differing],
    }
    if settings["print"] == "json":
        print(json.dumps(content))
    else:
        _print(content, compared)
        _print_data(reading, differing)
    return 0


def _held_out(compared: Sequence[Compared]) -> dict[str, Any]:
    """For each chip in the data, the errors on each source (a published table) with constants fitted to the others."""
    from engines.analytic.constants import calibrated_name, stored

    chips = {each.case.point.chip.name: each.case.point.chip for each in compared}
    return {
        name: stored(calibrated_name(chip)).get("leave_one_source_out", {})
        for name, chip in chips.items()
        if chip.kind != "cpu"
    }


def _row(each: Compared) -> dict[str, Any]:
    point = each.case.point
    return {
        "file": each.case.file,
        "line": each.case.line,
        "system": each.case.system,
        "model": point.model.name,
        "hw": point.chip.name,
        "runtime": AUTO if point.runtime is None else point.runtime.name,
        "parallelism": each.case.parallelism,
        "phase": point.phase,
        "batch_size": point.batch_size,
        "input_len": point.input_len,
        "output_len": point.output_len,
        "weight_dtype": point.weight_dtype,
        "status": "oom" if each.case.oom else "ok",
        "latency_s": each.case.latency_s,
        "derived": each.case.derived,
        "extra": dict(each.case.extra),
        "predicted_status": each.estimate.status,
        "predicted_s": each.estimate.latency_s,
        "predicted_low_s": each.estimate.latency_low_s,
        "predicted_high_s": each.estimate.latency_high_s,
        "error": each.error,
        "reason": each.estimate.error,
    }


def _print(content: Mapping[str, Any], compared: Sequence[Compared]) -> None:
    from bench.run import terminal

    console = terminal.console()
    table = terminal.table()
    for heading in (
        "file:line",
        "model",
        "runtime",
        "parallelism",
        "phase",
        "batch",
        "in",
        "out",
        "measured",
        "predicted",
        "80% interval",
        "error",
    ):
        table.add_column(
            heading, justify="left" if heading in ("file:line", "model", "runtime", "parallelism", "phase") else "right"
        )
    for row in content["errors"]:
        table.add_row(
            f"{row['file']}:{row['line']}",
            row["model"],
            row["runtime"],
            row["parallelism"],
            row["phase"],
            str(row["batch_size"]),
            str(row["input_len"]),
            str(row["output_len"]),
            "oom" if row["latency_s"] is None else f"{row['latency_s']:.4g} s",
            row["predicted_status"] if row["predicted_s"] is None else f"{row['predicted_s']:.4g} s",
            "" if row["predicted_low_s"] is None else f"{row['predicted_low_s']:.3g}–{row['predicted_high_s']:.3g} s",
            "" if row["error"] is None else f"{row['error']:+.1%}",
        )
    console.print(table)
    summary = terminal.table(title="relative error of latency")
    headings = (
        "rows",
        "mean",
        "median",
        "p90",
        "worst",
        "bias",
        "in 80%",
        "oom hit",
        "missed",
        "false alarm",
    )
    summary.add_column("")
    for heading in headings:
        summary.add_column(heading, justify="right")
    held_out = _mean_held_out(content["leave_one_source_out"])
    summary.add_row("all", *_cells(content))
    for kind, groups in content["groups"].items():
        for name, group in groups.items():
            summary.add_row(f"{kind} {name}", *_cells(group))
    console.print(summary)
    without_time = [each for each in compared if each.estimate.status not in ("ok", "oom")]
    for each in without_time[:MOST_SHOWN]:
        console.print(f"{each.case.file}:{each.case.line}: {each.estimate.status}: {each.estimate.error}")
    for peer in peers_of(each.case for each in compared):
        console.print(f"beside it: {peer.name}, mean error {peer.error} on {peer.rows} ({peer.source})")
    if content["covered"] is not None:
        console.print(
            "in 80%: share of measured times inside the prediction's 80% interval; rows that set its constants count"
        )
    if held_out:
        console.print(
            "held out, mean error on a table's rows with constants fitted to the other tables: "
            + ", ".join(f"{name} {error:.1%}" for name, error in held_out.items())
        )


def _contradiction(each: Contradiction) -> dict[str, Any]:
    first = each.cases[0]
    return {
        "system": first.system,
        "model": first.point.model.name,
        "hw": first.point.chip.name,
        "spread": each.spread,
        "rows": [{"file": case.file, "line": case.line, "latency_s": case.latency_s} for case in each.cases],
    }


def _print_data(reading: Reading, differing: Sequence[Contradiction]) -> None:
    """What is to be known of the data: derived times, columns without a meaning, contradictions, unused rows."""
    rules = Counter(case.derived for case in reading.cases if case.derived)
    for rule, count in rules.items():
        print(f"{counted(count, 'row')} by {rule}")
    extra = dict.fromkeys(name for case in reading.cases for name in case.extra)
    if extra:
        print(one_line(f"columns kept without a meaning here: {', '.join(extra)}"))
    for each in differing[:MOST_SHOWN]:
        times = ", ".join(f"{case.place} {case.latency_s:.4g} s" for case in each.cases)
        print(one_line(f"{each.cases[0].system}: rows of one point are {each.spread:.0%} apart: {times}"))
    if len(differing) > MOST_SHOWN:
        print(f"and {len(differing) - MOST_SHOWN} more points with rows apart; print=json has all")
    for line in unused_lines(reading.unused):
        print(line)


def _mean_held_out(by_chip: Mapping[str, Any]) -> dict[str, float]:
    """The mean error of each table that was held out."""
    return {source: each["mape"] for sources in by_chip.values() for source, each in sources.items()}


def _cells(group: Mapping[str, Any]) -> list[str]:
    sizes = [group[name] for name in ("mape", "median_ape", "p90_ape", "worst_ape")]
    return [
        str(group["rows"]),
        *("" if size is None else f"{size:.1%}" for size in sizes),
        "" if group["bias"] is None else f"{group['bias']:+.1%}",
        "" if group["covered"] is None else f"{group['covered']:.0%}",
        *(str(group[name]) for name in ("oom_hit", "oom_missed", "oom_false")),
    ]
