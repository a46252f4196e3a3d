"""Logging to Weights & Biases: one run per point, and one per sweep with its table and files.

Offline without an account. An error here loses no row: the store already has it.
"""

import importlib.util
import netrc
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.rows.metrics import METRICS
from engines.core.errors import InvalidRequest
from engines.core.row import POINT_FIELDS, Row

MODES: Final = ("auto", "offline", "online", "disabled")


class Tracker:
    """Logs rows. Made by :func:`open_tracker`."""

    def __init__(self, config: Mapping[str, Any], mode: str) -> None:
        self._config = config
        self._mode = mode
        self._folder = Path(config["results_dir"])
        self._started = False
        self._failed = False

    def log_row(self, row: Row) -> None:
        """Log one run for a point and program, if ``sources`` has the row's source; group = sweep, job_type = phase."""
        if row.source not in self._config["sources"]:
            return
        run = self._start(
            id="-".join(filter(None, (row.point_id, row.program_id))),
            name=f"{row.model} {row.phase} b{row.batch_size} {row.ffn_layout} n{row.num_chips}",
            group=row.sweep,
            job_type=row.phase,
            tags=_tags(row),
            config={key: getattr(row, key) for key in POINT_FIELDS},
        )
        if run is None:
            return
        summary = {name: getattr(row, name) for name in METRICS if getattr(row, name, None) is not None}
        outcome = {
            name: getattr(row, name) for name in ("status", "error", "source", "valid", "invalid_reason", "git_sha")
        }
        self._try(lambda: self._finish(run, {**summary, **outcome}, row.samples_s))

    def log_sweep(self, name: str, rows: Sequence[Row], paths: Sequence[Path]) -> None:
        """Log one run for a sweep: its rows as a table, and files (of a report) as an artifact."""
        run = self._start(name=name, group=name, job_type="sweep", tags=["sweep"], config={"sweep": name})
        if run is not None:
            self._try(lambda: self._finish_sweep(run, name, rows, paths))

    def close(self) -> None:
        """Wait until every run is written or sent, and print the folder of offline runs."""
        if self._started:
            self._try(_wait)
        if self._mode == "offline" and (self._folder / "wandb").is_dir() and sys.stderr.isatty():
            print(f"wandb: offline runs in {self._folder / 'wandb'}; upload them with wandb sync", file=sys.stderr)

    def _start(self, **settings: Any) -> Any:
        import wandb

        def start() -> Any:
            self._started = True
            self._folder.mkdir(parents=True, exist_ok=True)
            return wandb.init(
                project=self._config["project"],
                entity=self._config["entity"],
                dir=str(self._folder),
                mode="online" if self._mode == "online" else "offline",
                reinit="create_new",
                resume="allow" if self._mode == "online" and "id" in settings else None,
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
                **settings,
            )

        return self._try(start)

    def _finish(self, run: Any, summary: Mapping[str, Any], samples_s: Sequence[float] | None) -> None:
        import wandb

        if samples_s:
            rows: list[Any] = [[index, seconds] for index, seconds in enumerate(samples_s)]
            run.log({"samples": wandb.Table(columns=["run", "seconds"], data=rows)})
        run.summary.update(dict(summary))
        run.finish(exit_code=0 if summary["status"] in ("ok", "oom", "unsupported") else 1)

    def _finish_sweep(self, run: Any, name: str, rows: Sequence[Row], paths: Sequence[Path]) -> None:
        import wandb

        columns: list[str | int] = [*POINT_FIELDS, "source", "status", "valid", *METRICS]
        data: list[Any] = [[_cell(getattr(row, str(column), None)) for column in columns] for row in rows]
        run.log({"rows": wandb.Table(columns=columns, data=data)})
        if paths:
            artifact = wandb.Artifact(f"report-{name}", type="report")
            for path in paths:
                artifact.add_file(str(path), name="/".join(path.parts[-2:]))
            run.log_artifact(artifact)
        run.finish()

    def _try(self, action: Any) -> Any:
        if self._failed:
            return None
        try:
            return action()
        except Exception as error:  # logging must never stop the sweep
            self._failed = True
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            print(
                f"wandb: {reason}; logging is off for the rest of this command, the store has every row",
                file=sys.stderr,
            )
            return None


def _wait() -> None:
    import wandb

    wandb.teardown()


def open_tracker(config: Mapping[str, Any]) -> Tracker | None:
    """The tracker for a config; None if logging is disabled, or ``mode`` is auto and wandb is not installed.

    Args:
        config: the keys of ``conf/wandb/*.yaml`` and ``results_dir``.

    Raises:
        InvalidRequest: the mode is unknown, or needs wandb, which is not installed.
    """
    requested = str(config["mode"])
    mode = resolved_mode(requested)
    if mode == "disabled":
        return None
    if importlib.util.find_spec("wandb") is None:
        raise InvalidRequest(
            "wandb.mode",
            requested,
            "needs wandb, which is not installed",
            "pip install 'shardbench[wandb]' or use wandb.mode=disabled",
        )
    return Tracker(config, mode)


def resolved_mode(mode: str) -> str:
    """The mode in effect on this machine: online, offline or disabled. Uses no network.

    The library's own WANDB_MODE can turn logging off or offline, never on. ``auto`` is disabled without the library.

    Raises:
        InvalidRequest: the mode is unknown.
    """
    if mode not in MODES:
        raise InvalidRequest("wandb.mode", mode, "is not known", f"use one of {', '.join(MODES)}")
    if mode == "disabled" or os.environ.get("WANDB_MODE") == "disabled":
        return "disabled"
    if mode == "auto" and importlib.util.find_spec("wandb") is None:
        return "disabled"
    if os.environ.get("WANDB_MODE") == "offline":
        return "offline"
    if mode == "auto":
        return "online" if _logged_in() else "offline"
    return mode


def _logged_in() -> bool:
    """Whether this machine has an API key."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        logins = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host for host in logins.hosts)


def _tags(row: Row) -> list[str]:
    named = (row.model, row.hw, row.engine, row.source, row.ffn_layout, row.attn_sharding, row.weight_dtype)
    return [str(each)[:64] for each in named if each]


def _cell(value: Any) -> Any:
    return str(value) if isinstance(value, (list, dict)) else value
