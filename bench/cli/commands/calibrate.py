"""``shardbench calibrate``: fit the analytic engine's constants to measured times."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.calibrate.package import write_package
from bench.calibrate.published import KindFit, fit_published, short
from bench.calibrate.told import calibrate_own
from bench.cli.args import PRINT, Key
from bench.cli.values import FilePath, ListOf
from bench.rows.error_stats import error_stats
from bench.validate.data import read_data
from bench.validate.throughput import TOKENS
from engines.analytic.uncertainty import held_by, spread_of
from engines.core.errors import InvalidRequest

SUMMARY: Final = "fit the constants of the analytic engine to measured times"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key(
        "data",
        None,
        "your rows: a CSV file, a glob, a folder of CSV files or rows, or a list of these "
        "(default: all published rows, and all constants)",
        kind=ListOf(FilePath()),
    ),
    Key("hw", None, "with data: the chip to fit, where the rows are of several"),
    Key("runtime", None, "with data: the runtime to fit, one of conf/runtime (default: the one that the rows name)"),
    TOKENS,
    Key(
        "out",
        None,
        "with data: the runtime file to write; without: package, which rewrites the constants of shardbench "
        "(default: only print)",
        kind=FilePath(),
    ),
    PRINT,
)
EXAMPLES: Final = (
    "shardbench calibrate",
    "shardbench calibrate data=results/gpu out=conf/runtime/mine.yaml",
    "shardbench calibrate hw=h100-80gb runtime=vllm data=mine.csv print=json",
    "shardbench calibrate out=package",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Fit and print the constants; write them if ``out`` is set. Returns 0."""
    del verb
    if settings["data"]:
        return calibrate_own(settings)
    for key in ("hw", "runtime"):
        if settings[key] is not None:
            raise InvalidRequest(key, settings[key], "is for rows of your own", "add data=, or leave it out")
    if settings["out"] not in (None, "package"):
        raise InvalidRequest("out", settings["out"], "is for rows of your own", "use out=package, or add data=")
    found = fit_published(read_data(None, "analytic", settings["tokens"]).cases)
    if settings["out"]:
        written = write_package(found)
        print(f"wrote {len(written)} files of constants", file=sys.stderr)
    if settings["print"] == "json":
        print(json.dumps({each.kind: _summary(each) for each in found}))
    else:
        _print(found)
    return 0


def _summary(found: KindFit) -> dict[str, Any]:
    held = held_by(found.left_out)
    errors: dict[str, list[float]] = {source: [] for source in found.fit.sources}
    for source, error in zip(found.fit.sources, found.fit.errors, strict=True):
        errors[source].append(float(error))
    return {
        "rows": len(found.rows),
        "spread": short(spread_of(found.left_out)),
        "in_fit": _mean(found.fit.errors.tolist()),
        "left_out": _mean([error for each in found.left_out for error in each.errors]),
        "sources": {
            each.source: {
                "rows": len(each.errors),
                "in_fit": _mean(errors[each.source]),
                "left_out": _mean(each.errors.tolist()),
                "held": short(held[each.source]),
            }
            for each in found.left_out
        },
        "constants": {
            chip: {
                runtime: {name: short(value) for name, value in found.fit.constants(chip, runtime).items()}
                for runtime in found.runtimes
            }
            for chip in found.chips
        },
    }


def _mean(errors: Sequence[float]) -> float:
    stats = error_stats(float(error) for error in errors)
    return 0.0 if stats is None else short(stats.mean)


def _print(found: Sequence[KindFit]) -> None:
    from bench.run import terminal

    console = terminal.console()
    for each in found:
        about = _summary(each)
        table = terminal.table(title=f"{each.kind}: mean error by source")
        for heading in ("source", "rows", "in the fit", "left out", "in the 80% interval, left out"):
            table.add_column(heading, justify="left" if heading == "source" else "right", overflow="fold")
        whole = {"rows": about["rows"], "in_fit": about["in_fit"], "left_out": about["left_out"], "held": _held(about)}
        for source, figures in {**about["sources"], "all": whole}.items():
            table.add_row(
                source,
                str(figures["rows"]),
                f"{figures['in_fit']:.1%}",
                f"{figures['left_out']:.1%}",
                f"{figures['held']:.0%}",
            )
        console.print(table)


def _held(about: Mapping[str, Any]) -> float:
    sources = about["sources"].values()
    return float(sum(each["rows"] * each["held"] for each in sources) / sum(each["rows"] for each in sources))
