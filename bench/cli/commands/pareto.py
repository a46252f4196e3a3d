"""``shardbench pareto``: cost against latency over chips, batch, layout and dtype."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.cli.args import PRICE, PRINT, Key
from bench.cli.commands.plan import SIZES, WEIGHT_DTYPES, workload_from
from bench.cli.values import Choice, FilePath, Integer, ListOf, Text
from engines.core.errors import InvalidRequest
from engines.core.text import significant

if TYPE_CHECKING:
    from bench.planner.pareto import Spot

SUMMARY: Final = "cost against latency over chips, batch, layout and dtype: the Pareto frontier as CSV and figure"
VERBS: Final[Mapping[str, str]] = {}
PHASES: Final = ("decode", "prefill")
KEYS: Final = (
    Key("model", ["palm-8b", "palm-62b", "palm-540b"], "a model of conf/model, or a list of them", kind=ListOf(Text())),
    Key("hw", "tpu-v4", "the chip, one of conf/hw"),
    Key("runtime", "auto", "the runtime to predict, one of conf/runtime; auto is best"),
    Key("phase", list(PHASES), "decode, prefill, or both", kind=ListOf(Choice(PHASES))),
    Key("context_len", 2048, "tokens of a prefill; in a decode, cached plus generated tokens", kind=Integer(2)),
    Key("output_len", 64, "tokens generated in a decode", kind=Integer(1)),
    Key("batch_size", "auto", "sequences: a number, a list, or auto (1 to 1024)", kind=SIZES),
    Key("num_chips", "auto", "chips: a number, a list, or auto (up to max_chips)", kind=SIZES),
    Key("max_chips", 256, "largest number of chips for num_chips=auto", kind=Integer(1)),
    Key("weight_dtype", ["bfloat16", "int8"], "dtype of the weights, or a list", kind=WEIGHT_DTYPES),
    PRICE,
    Key("out", "reports/pareto", "folder for pareto.csv, pareto.png and pareto.pdf", kind=FilePath()),
    PRINT,
)
EXAMPLES: Final = (
    "shardbench pareto",
    "shardbench pareto model=llama-3-70b hw=h100-80gb weight_dtype=bfloat16 out=reports/llama",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Predict every configuration, write the files, print the frontier. Returns 1 if none fits in memory, else 0."""
    from bench.planner.pareto import draw, write_csv
    from bench.rows.prices import load_prices
    from bench.sweep.catalog import load_chip
    from bench.validate.ratios import ratio_error

    del verb
    prices = load_prices(settings["price"])
    found = [
        replace(spot, cost_usd_per_mtok=prices.usd_per_mtok(spot.hw, spot.cost_chip_s_per_token))
        for spot in _spots(settings)
    ]
    if not found:
        print("no configuration fits in memory; use more chips or a smaller weight_dtype", file=sys.stderr)
        return 1
    folder = Path(settings["out"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "pareto.csv", found)
        known = ratio_error(load_chip(settings["hw"]).kind)
        factor = 1.0 if known is None else known.factor
        written = [folder / "pareto.csv", *draw(found, folder, "pareto", factor)]
    except OSError as error:
        raise InvalidRequest("out", folder, f"cannot be written ({error.strerror})", "use a writable folder") from None
    best = [spot for spot in found if spot.on_frontier]
    close = sum(not (spot.on_frontier or spot.told_apart) for spot in found)
    if settings["print"] == "json":
        print(
            json.dumps(
                {
                    "frontier": [asdict(spot) for spot in best],
                    "configurations": len(found),
                    "not_told_apart": close,
                    "within": factor - 1,
                    "files": [*map(str, written)],
                }
            )
        )
    else:
        _print(best)
        print(
            f"{len(found)} configurations, {len(best)} on a frontier, from which {close} more cannot be told apart; "
            f"wrote {', '.join(map(str, written))}",
            file=sys.stderr,
        )
    return 0


def _spots(settings: Mapping[str, Any]) -> "list[Spot]":
    from bench.planner.pareto import spots

    context, output_len = settings["context_len"], settings["output_len"]
    if output_len >= context:
        raise InvalidRequest(
            "output_len",
            output_len,
            f"must be < context_len={context}",
            "lower it or raise context_len",
        )
    shared = {
        name: settings[name]
        for name in ("hw", "runtime", "batch_size", "num_chips", "max_chips", "weight_dtype", "output_len")
    }
    return [
        spot
        for model in settings["model"]
        for phase in settings["phase"]
        for spot in spots(
            workload_from(
                {**shared, "model": model, "phase": phase, "input_len": context - output_len * (phase == "decode")}
            )
        )
    ]


def _print(best: "list[Spot]") -> None:
    from bench.run import terminal

    table = terminal.table()
    priced = any(spot.cost_usd_per_mtok is not None for spot in best)
    headings = ("model", "phase", "weights", "chips", "mesh", "batch", "layout", "latency", "chip-ms/token", "MFU")
    for heading in (*headings, *(["USD/Mtok"] if priced else [])):
        table.add_column(heading)
    for spot in sorted(best, key=lambda each: (each.model, each.phase, each.weight_dtype, each.latency_s)):
        table.add_row(
            spot.model,
            spot.phase,
            spot.weight_dtype,
            str(spot.num_chips),
            spot.parallelism,
            str(spot.batch_size),
            f"{spot.ffn_layout} {spot.attn_sharding}",
            f"{significant(spot.latency_s, 4)} s",
            significant(1e3 * spot.cost_chip_s_per_token),
            f"{spot.mfu:.1%}",
            *([significant(spot.cost_usd_per_mtok or 0.0)] if priced else []),
        )
    terminal.console(160).print(table)
