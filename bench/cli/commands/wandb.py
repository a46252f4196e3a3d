"""``shardbench wandb``: logs stored rows to Weights & Biases that were stored without it, and saves a view of them."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, get_args

from bench.cli.args import PRINT, RESULTS_DIR, Key
from bench.cli.values import FilePath
from bench.rows.atomic import replaced
from bench.rows.counted import counted
from engines.core.errors import InvalidRequest, ShardbenchError
from engines.core.row import Row, Source

SUMMARY: Final = "log stored rows to Weights & Biases that were stored without it, or save a view that draws them"
VERBS: Final[Mapping[str, str]] = {
    "sync": "log each row once that no run and no sync has logged before",
    "workspace": "save a view of the project that draws latency, MFU and cost; offline, write it as a file",
}
KEYS: Final = (
    replace(RESULTS_DIR, kind=FilePath()),
    Key("sweep", None, "only rows of this sweep (default: all), and one run for the sweep as a whole"),
    Key("source", None, "only rows of this source (default: sources of conf/wandb)", get_args(Source)),
    Key("mode", "auto", "auto is online where this machine is logged in", ("auto", "online", "offline")),
    Key("project", None, "the project in W&B (default: as in conf/wandb)"),
    Key("entity", None, "the user or team in W&B (default: that of the login)"),
    Key("out", None, "workspace, offline: the file (default: RESULTS_DIR/wandb-workspace.json)", kind=FilePath()),
    PRINT,
)
EXAMPLES: Final = (
    "shardbench wandb sync",
    "shardbench wandb sync results_dir=results/mine sweep=nightly mode=offline",
    "shardbench wandb workspace project=mine entity=team mode=online",
)
SAVE_TIMEOUT_S: Final = 60.0
SOME_FAILED: Final = 3


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Do what the verb says. Returns 0, or 3 if some rows could not be logged.

    Raises:
        InvalidRequest: there is no verb, the store is missing, or the library is not installed or turned off.
        ShardbenchError: the store cannot be read.
    """
    from bench.run.wandb_session import in_places_of_ours
    from bench.sweep.catalog import load_group

    if verb is None:
        raise InvalidRequest("verb", "", "is required", f"use one of {', '.join(VERBS)}")
    given = {key: settings[key] for key in ("mode", "project", "entity") if settings[key] is not None}
    config = {**load_group("wandb", "default"), **given, "results_dir": str(settings["results_dir"])}
    if verb != "workspace":
        return _log_rows(config, settings)
    with in_places_of_ours(Path(config["results_dir"])):
        return _save_workspace(config, settings)


def _save_workspace(config: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    from bench.run.wandb_mode import resolved_mode
    from bench.run.wandb_workspace import save, to_json, workspace

    view = workspace(config["project"], config["entity"])
    as_json = settings["print"] == "json"
    if resolved_mode(config["mode"]) == "online":
        url = save(view, SAVE_TIMEOUT_S)
        print(json.dumps({"url": url}) if as_json else f"view saved: {url}")
        return 0
    out = Path(settings["out"] or Path(config["results_dir"]) / "wandb-workspace.json")
    with replaced(out) as temporary:
        temporary.write_text(to_json(view), encoding="utf-8")
    upload = f"shardbench wandb workspace project={shlex.quote(config['project'])} mode=online"
    print(json.dumps({"out": str(out), "next": upload}) if as_json else f"view in {out}; this saves it: {upload}")
    return 0


def _log_rows(config: dict[str, Any], settings: Mapping[str, Any]) -> int:
    from bench.rows.store import Store
    from bench.run.logged_rows import LoggedRows
    from bench.run.tracking import open_tracker, run_id
    from bench.storage.there import check_there

    folder = Path(config["results_dir"])
    check_there(folder)
    if settings["source"] is not None:
        config["sources"] = [settings["source"]]
    tracker = open_tracker(config)
    if tracker is None:
        raise InvalidRequest("mode", settings["mode"], "logs nothing here", _why_disabled())
    sweep = settings["sweep"]
    of_sweep = [row for row in Store(folder).load() if sweep in (None, row.sweep)]
    rows = [row for row in of_sweep if row.source in config["sources"]]
    remembered = LoggedRows(folder)
    try:
        left = remembered.without(rows)
        current = newest_of_each_run(left)
        failed = [row for row in current if not tracker.log_row(row)]
        if sweep is not None and current:
            tracker.log_sweep(sweep, of_sweep)
        tracker.close()
        # An older measurement of the same program is in the same run, of which W&B shows the newest.
        done = {run_id(row) for row in current} - {run_id(row) for row in failed}
        remembered.add([row for row in left if row not in current and run_id(row) in done])
    except OSError as error:
        raise ShardbenchError(
            f"{remembered.path}: cannot be read or written ({error.strerror}); make it a writable file"
        ) from None
    offline = sorted(tracker.offline_folder.glob("offline-run-*"))
    content = {
        "logged": len(current) - len(failed),
        "logged_before": len(rows) - len(left),
        "failed": len(failed),
        "offline_runs": len(offline),
        "next": f"wandb sync {shlex.quote(str(tracker.offline_folder))}/offline-run-*" if offline else None,
    }
    _print(content, str(settings["print"]))
    return SOME_FAILED if failed else 0


def newest_of_each_run(rows: Sequence[Row]) -> list[Row]:
    """The newest row of every run's id, in order: rows of one point and program share a run."""
    from bench.run.tracking import run_id

    return list({run_id(row): row for row in sorted(rows, key=lambda row: row.created_at)}.values())


def _why_disabled() -> str:
    from bench.run.wandb_mode import is_installed

    return "unset WANDB_MODE" if is_installed() else "pip install 'shardbench[wandb]'"


def _print(content: Mapping[str, Any], how: str) -> None:
    if how == "json":
        print(json.dumps(content))
        return
    print(f"{counted(content['logged'], 'row')} logged, {content['logged_before']} logged before", end="")
    print(f", {content['failed']} could not be logged" if content["failed"] else "")
    if content["next"]:
        print(f"{content['offline_runs']} offline runs; this uploads them: {content['next']}")
