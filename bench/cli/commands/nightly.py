"""``shardbench nightly``: for cron: run, compare with the night before, write report and dashboard."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.cli.args import PRINT, Key
from bench.cli.commands.compare import RULES, plain, rules_of, show
from engines.core.errors import InvalidRequest

SUMMARY: Final = "run a sweep, compare it with the night before, write report and dashboard; 1 if something is worse"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key("sweep", "nightly", "the recipe of conf/sweep to run"),
    Key("run", [], "more keys for shardbench run: run=[timing.min_samples=30,wandb.mode=disabled]"),
    Key("results_dir", "results", "the night's rows go to RESULTS_DIR/nightly/<date>"),
    Key("out", "reports/nightly", "dashboard.html, and a folder a night with its report and comparison.json"),
    Key(
        "confirm",
        2,
        "reruns, at most, while a measured point looks slower; with processes=1 the fastest run of a point counts",
    ),
    Key(
        "processes",
        1,
        "processes that measure each point; above 1 their medians are compared, not one's samples",
    ),
    Key("date", None, "the night's date (default: today, UTC)"),
    *RULES,
    PRINT,
)
EXAMPLES: Final = (
    "shardbench nightly",
    "shardbench nightly processes=3",
    "shardbench nightly sweep=virtual-devices threshold=0.1 print=json",
    "0 2 * * *  cd /srv/shardbench && .venv/bin/shardbench nightly >> nightly.log 2>&1    (a line of crontab)",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Do a night. Returns 1 for a regression, 3 where points failed."""
    del verb
    from bench.compare.nightly import NightlySettings, checked_day, run_night

    words = settings["run"] if isinstance(settings["run"], list) else [settings["run"]]
    if not all(isinstance(word, str) and "=" in word for word in words):
        raise InvalidRequest("run", settings["run"], "has an item that is not key=value", "write run=[key=value,...]")
    confirm = settings["confirm"]
    if isinstance(confirm, bool) or not isinstance(confirm, int) or confirm < 0:
        raise InvalidRequest("confirm", confirm, "must be an integer ≥ 0", "it is a number of runs")
    processes = settings["processes"]
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise InvalidRequest("processes", processes, "must be an integer ≥ 1", "give one such as 3")
    today = datetime.now(UTC).date().isoformat()
    plan = NightlySettings(
        sweep=str(settings["sweep"]),
        results_dir=Path(str(settings["results_dir"])),
        out=Path(str(settings["out"])),
        day=checked_day(today if settings["date"] is None else str(settings["date"])),
        rules=replace(rules_of(settings), by_process=processes > 1),
        confirm=confirm,
        processes=processes,
        words=words,
    )
    outcome = run_night(plan)
    if settings["print"] == "json":
        content = {
            "night": str(outcome.night),
            "previous": None if outcome.previous is None else str(outcome.previous),
            "repeats": outcome.repeats,
            "points_failed": outcome.points_failed,
            "files": [str(path) for path in outcome.files],
            "comparison": None if outcome.comparison is None else plain(outcome.comparison),
        }
        print(json.dumps(content))
        return outcome.exit_code
    if outcome.comparison is None:
        print("no night before this one to compare with")
    else:
        again = f" after {outcome.repeats} more runs, since points looked slower" if outcome.repeats else ""
        print(f"compared with {outcome.previous}{again}")
        show(outcome.comparison)
    if outcome.points_failed:
        print(f"some points failed: shardbench results list results_dir={outcome.night} status=[failed,timeout]")
    print(f"rows in {outcome.night}; written:")
    for path in outcome.files:
        print(f"  {path}")
    return outcome.exit_code
