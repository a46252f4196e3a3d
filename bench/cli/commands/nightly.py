"""``shardbench nightly``, for cron: runs a sweep, compares it with the previous night, writes report and dashboard."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.cli.args import PRINT, Key
from bench.cli.commands.compare import RULES, plain, rules_of, show
from bench.cli.values import FilePath, Integer, ListOf, Text
from engines.core.errors import InvalidRequest

SUMMARY: Final = "run a sweep, compare it with the previous night, write report and dashboard; exit code 1 if worse"
VERBS: Final[Mapping[str, str]] = {}
KEYS: Final = (
    Key("sweep", "nightly", "the sweep to run, one of conf/sweep"),
    Key(
        "run",
        [],
        "further arguments of shardbench run: run=[timing.min_samples=30,wandb.mode=disabled]",
        kind=ListOf(Text(), least=0),
    ),
    Key(
        "estimate",
        [],
        "programs of others, timed too: arguments of shardbench estimate, ['function=train:step hw=tpu-v5e']",
        kind=ListOf(Text(), least=0),
    ),
    Key("results_dir", "results", "folder of the stores; rows go to RESULTS_DIR/nightly/<date>", kind=FilePath()),
    Key(
        "out",
        "reports/nightly",
        "folder for dashboard.html and, per night, a report and comparison.json",
        kind=FilePath(),
    ),
    Key(
        "confirm",
        2,
        "most repeats while a measured point is slower; with processes=1 its fastest run counts",
        kind=Integer(0),
    ),
    Key(
        "processes",
        1,
        "processes that measure every point; above 1, medians per process are compared",
        kind=Integer(1),
    ),
    Key("date", None, "date of the night (default: today, UTC)"),
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
    """Run a night. Returns 1 if there is a regression, 3 if points failed, else 0."""
    del verb
    from bench.compare.nightly import NightlySettings, checked_day, run_night

    words, processes = settings["run"], settings["processes"]
    for word in words:
        if "=" not in word:
            raise InvalidRequest("run", word, "must be a list of key=value", "use run=[key=value,...]")
    today = datetime.now(UTC).date().isoformat()
    plan = NightlySettings(
        sweep=settings["sweep"],
        results_dir=Path(settings["results_dir"]),
        out=Path(settings["out"]),
        day=checked_day(today if settings["date"] is None else settings["date"]),
        rules=replace(rules_of(settings), by_process=processes > 1),
        confirm=settings["confirm"],
        processes=processes,
        words=words,
        programs=[shlex.split(each) for each in settings["estimate"]],
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
        print("no previous night to compare with")
    else:
        repeats = f" after {outcome.repeats} repeats, since points were slower" if outcome.repeats else ""
        print(f"compared with {outcome.previous}{repeats}")
        show(outcome.comparison)
    if outcome.points_failed:
        print(f"some points failed: shardbench results list results_dir={outcome.night} status=[failed,timeout]")
    print(f"rows in {outcome.night}; written:")
    for path in outcome.files:
        print(f"  {path}")
    return outcome.exit_code
