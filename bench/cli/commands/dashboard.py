"""``shardbench dashboard``: a static site of all stored rows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.cli.args import PRINT, Key
from bench.cli.commands.compare import RULES, rules_of
from bench.cli.values import FilePath
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
    *RULES,
    PRINT,
)
EXAMPLES: Final = (
    "shardbench dashboard",
    "shardbench dashboard out=site/",
    "shardbench dashboard results_dir=results/nightly out=reports/nightly.html title='nightly on tpu-v5e'",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Write the site. Returns 0 even if it shows regressions; ``compare`` has an exit code for them."""
    del verb
    from bench.dashboard.write import write

    out = Path(settings["out"])
    rows = write(Path(settings["results_dir"]), out, settings["title"], rules_of(settings))
    if settings["print"] == "json":
        print(json.dumps({"out": str(out), "rows": rows}))
    else:
        print(f"{counted(rows, 'row')} in {out}")
    return 0
