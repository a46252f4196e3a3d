"""``shardbench dashboard``: a static site of all stored rows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.cli.args import PRICE, PRINT, Key
from bench.cli.values import FilePath, Number
from bench.rows.counted import counted

SUMMARY: Final = "write a static site of all rows: explore, filter and compare them, and see each with its command"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key("results_dir", "results", "the store, or a folder of stores such as results/nightly", kind=FilePath()),
    Key(
        "out",
        "reports/dashboard.html",
        "what to write: one file if it ends in .html, else a folder for a static host, smaller to load",
        kind=FilePath(),
    ),
    Key("title", "shardbench", "the heading of the site"),
    Key(
        "false_alarms",
        None,
        "probability of a step by chance, for one measured point and night (default: as the nights were judged)",
        kind=Number(above=0, below=0.1),
    ),
    Key(
        "smallest_step",
        None,
        "measured steps smaller than this fraction are not shown (default: as the nights were judged)",
        kind=Number(above=0, below=1),
    ),
    Key(
        "threshold",
        None,
        "a computed time is slower if it rose by more than this fraction (default: as the nights were judged)",
        kind=Number(minimum=0),
    ),
    PRICE,
    PRINT,
)
EXAMPLES: Final = (
    "shardbench dashboard",
    "shardbench dashboard out=reports/site/",
    "shardbench dashboard results_dir=results/nightly out=reports/nightly.html title='nightly on tpu-v5e'",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Write the site. Returns 0 even if it shows regressions; ``compare`` has an exit code for them."""
    del verb
    from bench.compare.nights.kept_rules import KEYS as RULES
    from bench.compare.nights.kept_rules import rules_for
    from bench.compare.verdicts import Rules
    from bench.dashboard.write import write
    from bench.rows.prices import load_prices
    from bench.storage.there import check_there

    out = Path(settings["out"])
    folder = Path(settings["results_dir"])
    check_there(folder)
    steps, threshold = rules_for(folder, {name: settings[name] for name in RULES})
    rows = write(folder, out, settings["title"], Rules(threshold=threshold), steps, load_prices(settings["price"]))
    if settings["print"] == "json":
        print(json.dumps({"out": str(out), "rows": rows}))
    else:
        print(f"{counted(rows, 'row')} in {out}")
    return 0
