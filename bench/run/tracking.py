"""Logging to Weights & Biases: one run per point, and one per sweep with its table and files.

Offline without an account or a network. An error here loses no row: the store already has it.
"""

import atexit
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from bench.rows.escape import file_name
from bench.rows.metrics import METRICS
from bench.run.logged_rows import LoggedRows
from bench.run.wandb_mode import is_installed, resolved_mode, unreachable
from engines.core.errors import InvalidRequest
from engines.core.row import POINT_FIELDS, PROGRAM, Row
from engines.host.scratch import ScratchFolder

REACH_TIMEOUT_S: Final = 5.0
"""How long the server may take to answer anything before rows are logged offline."""
INIT_TIMEOUT_S: Final = 30.0
"""How long it may take to begin a run; the library's default is 90."""
FINISH_TIMEOUT_S: Final = 60.0
"""How long the upload of one run may hold up the next point; the library's default is for ever."""


class Tracker:
    """Logs rows. Made by :func:`open_tracker`."""

    def __init__(self, config: Mapping[str, Any], mode: str) -> None:
        self._config = config
        self._mode = mode
        self._folder = Path(config["results_dir"])
        self._logged = LoggedRows(self._folder)
        self._started = False
        self._failed = False

    def log_row(self, row: Row) -> bool:
        """Log one run for a point and program, if ``sources`` has the row's source; group = sweep, job_type = phase.

        Returns whether it was logged.
        """
        if row.source not in self._config["sources"]:
            return False
        summary = {name: getattr(row, name) for name in METRICS if getattr(row, name, None) is not None}
        outcome = {
            name: getattr(row, name) for name in ("status", "error", "source", "valid", "invalid_reason", "git_sha")
        }

        def log() -> bool:
            run = self._begin(
                id=run_id(row),
                name=_name(row),
                group=row.sweep,
                job_type=row.phase,
                tags=_tags(row),
                config={key: getattr(row, key) for key in POINT_FIELDS},
            )
            self._finish(run, {**summary, **outcome}, row.samples_s)
            self._logged.add([row])
            return True

        return bool(self._try(log))

    def log_sweep(self, name: str, rows: Sequence[Row], paths: Sequence[Path]) -> None:
        """Log one run for a sweep: its rows as a table, and files (of a report) as an artifact."""

        def log() -> None:
            run = self._begin(name=name, group=name, job_type="sweep", tags=["sweep"], config={"sweep": name})
            self._finish_sweep(run, name, rows, paths)

        self._try(log)

    def close(self) -> None:
        """Wait until every run is written or sent, and print the folder of offline runs."""
        if self._started:
            self._try(_wait)
        if self._mode == "offline" and self.offline_folder.is_dir() and sys.stderr.isatty():
            print(f"wandb: offline runs in {self.offline_folder}; upload them with wandb sync", file=sys.stderr)

    @property
    def offline_folder(self) -> Path:
        """The folder of the runs that are not uploaded."""
        return self._folder / "wandb"

    def _begin(self, **settings: Any) -> Any:
        """Begin a run; offline from now on if the server does not let it begin."""
        if not self._started:
            self._started = True
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._mode == "online":
                import wandb

                problem = unreachable(wandb.setup().settings.base_url, REACH_TIMEOUT_S)
                if problem is not None:
                    self._go_offline(problem)
        if self._mode == "online":
            try:
                return self._init("online", settings)
            except Exception as error:  # of any kind: no network, no such project, an expired key
                self._go_offline(_reason(error))
                with suppress(Exception, SystemExit):
                    _wait()  # the library's service holds the id of the run that did not begin
        return self._init("offline", settings)

    def _go_offline(self, problem: str) -> None:
        self._mode = "offline"
        print(
            f"wandb: {problem}; logging offline from here on; upload it later with wandb sync {self.offline_folder}/"
            "offline-run-*; shardbench wandb sync logs rows that are missing",
            file=sys.stderr,
        )

    def _init(self, mode: Literal["online", "offline"], settings: Mapping[str, Any]) -> Any:
        import wandb

        limits: dict[str, Any] = {
            "init_timeout": INIT_TIMEOUT_S,
            "finish_timeout": FINISH_TIMEOUT_S,
            "finish_timeout_raises": True,
        }
        known = {name: value for name, value in limits.items() if name in wandb.Settings.model_fields}
        return wandb.init(
            project=self._config["project"],
            entity=self._config["entity"],
            dir=str(self._folder),
            mode=mode,
            reinit="create_new",
            resume="allow" if mode == "online" and "id" in settings else None,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True, **known),
            **settings,
        )

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
            artifact = wandb.Artifact(f"report-{file_name(name)}", type="report")
            for path in paths:
                artifact.add_file(str(path), name="/".join(path.parts[-2:]))
            run.log_artifact(artifact)
        run.finish()

    def _try(self, action: Callable[[], Any]) -> Any:
        if self._failed:
            return None
        try:
            with _in_scratch():
                return action()
        except (Exception, SystemExit) as error:  # logging must never stop the sweep, and the library may exit
            if self._mode == "online":
                self._go_offline(_reason(error))
                return None
            self._failed = True
            print(
                f"wandb: {_reason(error)}; logging is off for the rest of this command, the store has every row; "
                "shardbench wandb sync logs those rows later",
                file=sys.stderr,
            )
            return None


@cache
def _scratch() -> ScratchFolder:
    """The temporary folder of the library in this process, which goes with it, however that ends."""
    scratch = ScratchFolder()
    atexit.register(scratch.close)
    return scratch


@contextmanager
def _in_scratch() -> Iterator[None]:
    """The library makes temporary folders as it is imported and later: here they lie in :func:`_scratch`."""
    former, tempfile.tempdir = tempfile.tempdir, str(_scratch().path)
    try:
        yield
    finally:
        tempfile.tempdir = former


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
    if not is_installed():
        raise InvalidRequest(
            "wandb.mode",
            requested,
            "needs wandb, which is not installed",
            "pip install 'shardbench[wandb]' or use wandb.mode=disabled",
        )
    return Tracker(config, mode)


def run_id(row: Row) -> str:
    """The id of a row's run: a point that is measured again, by the same program, updates its run."""
    return "-".join(filter(None, (row.point_id, row.program_id)))


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _name(row: Row) -> str:
    if row.phase == PROGRAM:
        return f"{row.model} {row.hw} n{row.num_chips}"
    return f"{row.model} {row.phase} b{row.batch_size} {row.ffn_layout} n{row.num_chips}"


def _tags(row: Row) -> list[str]:
    named = (row.model, row.hw, row.engine, row.source, row.ffn_layout, row.attn_sharding, row.weight_dtype)
    return [str(each)[:64] for each in named if each]


def _cell(value: Any) -> Any:
    return str(value) if isinstance(value, (list, dict)) else value
