"""``shardbench dashboard``: one HTML page of all stored rows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.cli.args import PRINT, Key
from bench.cli.commands.compare import RULES, rules_of
from bench.cli.values import FilePath
from bench.rows.counted import counted

SUMMARY: Final = "write one HTML page: regressions, every point over time, the newest rows, the environment"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key("results_dir", "results", "the store, or a folder of stores such as results/nightly", kind=FilePath()),
    Key("out", "reports/dashboard.html", "the file to write", kind=FilePath()),
    Key("title", "shardbench", "the heading of the page"),
    *RULES,
    PRINT,
)
EXAMPLES: Final = (
    "shardbench dashboard",
    "shardbench dashboard results_dir=results/nightly out=reports/nightly.html title='nightly on tpu-v5e'",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Write the page. Returns 0 even if it shows regressions; ``compare`` has an exit code for them."""
    del verb
    from bench.compare.dashboard.write import write

    out = Path(settings["out"])
    rows = write(Path(settings["results_dir"]), out, settings["title"], rules_of(settings))
    if settings["print"] == "json":
        print(json.dumps({"out": str(out), "rows": rows}))
    else:
        print(f"{counted(rows, 'row')} in {out}")
    return 0
