"""``shardbench nightly``, for cron: runs a sweep, judges it by all nights before it, writes report and dashboard."""

import json
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.cli.args import PRINT, Key
from bench.cli.values import FilePath, Integer, ListOf, Number, Text
from engines.core.errors import InvalidRequest

SUMMARY: Final = "run a sweep, judge it by the nights before it, write report and dashboard; exit code 1 if worse"
MOST_SHOWN: Final = 40
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
        "folder for dashboard.html and, per night, summary.md, verdict.json, benchmark.json and a report",
        kind=FilePath(),
    ),
    Key(
        "confirm",
        2,
        "most further processes that measure every point while one is suspected to be slower",
        kind=Integer(0),
    ),
    Key(
        "processes",
        3,
        "processes that measure every point; their median is the night's time, of one or two the fastest",
        kind=Integer(1),
    ),
    Key(
        "most_processes",
        9,
        "processes up to which more measure every point where nights would not show find_step",
        kind=Integer(1),
    ),
    Key(
        "find_step",
        0.05,
        "the step, as a fraction, that two nights are to show",
        kind=Number(above=0, below=1),
    ),
    Key(
        "false_alarms",
        1e-4,
        "probability of a step where there is none, for one measured point and night",
        kind=Number(above=0, below=0.1),
    ),
    Key(
        "smallest_step",
        0.03,
        "measured steps smaller than this fraction are not told",
        kind=Number(above=0, below=1),
    ),
    Key(
        "threshold",
        0.05,
        "a computed time is slower if it rose by more than this fraction",
        kind=Number(minimum=0),
    ),
    Key("date", None, "date of the night (default: today, UTC)"),
    PRINT,
)
EXAMPLES: Final = (
    "shardbench nightly",
    "shardbench nightly processes=5 most_processes=15 find_step=0.03 smallest_step=0.02",
    "shardbench nightly sweep=virtual-devices print=json",
    "0 2 * * *  cd /srv/shardbench && .venv/bin/shardbench nightly >> nightly.log 2>&1    (a line of crontab)",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Run a night. Returns 1 if there is a new regression, 3 if points failed or nothing could be compared, else 0."""
    del verb
    from bench.compare.nightly import NightlySettings, checked_day, run_night
    from bench.compare.nights.steps import StepRules
    from bench.compare.nights.summary import headline, plain
    from bench.compare.verdicts import Rules

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
        rules=Rules(threshold=settings["threshold"], by_process=processes > 1),
        steps=StepRules(false_alarms=settings["false_alarms"], smallest=settings["smallest_step"]),
        confirm=settings["confirm"],
        processes=processes,
        most_processes=settings["most_processes"],
        find_step=settings["find_step"],
        words=words,
        programs=[shlex.split(each) for each in settings["estimate"]],
    )
    outcome = run_night(plan)
    if settings["print"] == "json":
        content = {
            "night": str(outcome.night),
            "repeats": outcome.repeats,
            "points_failed": outcome.points_failed,
            "files": [str(path) for path in outcome.files],
            "verdict": plain(outcome.verdict),
        }
        print(json.dumps(content))
        return outcome.exit_code
    print(f"night of {plan.day}: {headline(outcome.verdict)}")
    for each in outcome.verdict.findings[:MOST_SHOWN]:
        ratio = "" if each.ratio is None else f" {each.ratio:.3f} times as long"
        changed = f" ({'; '.join(each.changed)})" if each.changed else ""
        print(f"  {each.kind}: {each.history.label}{ratio} since {each.since}: {each.reason}{changed}")
    if len(outcome.verdict.findings) > MOST_SHOWN:
        print(f"  and {len(outcome.verdict.findings) - MOST_SHOWN} more; print=json shows all")
    if outcome.verdict.damaged:
        print(f"  damaged rows, left out: {'; '.join(outcome.verdict.damaged[:3])}")
    if outcome.points_failed:
        print(f"some points failed: shardbench results list results_dir={outcome.night} status=[failed,timeout]")
    print(f"rows in {outcome.night}; written:")
    for path in outcome.files:
        print(f"  {path}")
    return outcome.exit_code
