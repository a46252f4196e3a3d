"""Logging to Weights & Biases: one run per point, and one per sweep with its table, figures and report.

Offline without an account or a network. An error here loses no row: the store already has it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.rows.escape import file_name
from bench.rows.metrics import METRICS
from bench.rows.store import line_of
from bench.run.logged_rows import LoggedRows
from bench.run.wandb_mode import is_installed, resolved_mode
from bench.run.wandb_session import WandbSession
from engines.core.errors import InvalidRequest
from engines.core.row import POINT_FIELDS, PROGRAM, Row
from engines.host.scratch import ScratchFolder

TABLE_ROWS: Final = 10_000
"""Most rows of a sweep's table, which is drawn in a browser; the file of rows has all."""
PICTURE: Final = ".png"


class Tracker:
    """Logs rows. Made by :func:`open_tracker`."""

    def __init__(self, config: Mapping[str, Any], mode: str) -> None:
        self._config = config
        self._session = WandbSession(config, mode)
        self._logged = LoggedRows(Path(config["results_dir"]))

    @property
    def offline_folder(self) -> Path:
        """The folder of the runs that are not uploaded."""
        return self._session.folder

    def log_row(self, row: Row) -> bool:
        """Log one run for a point and program, if ``sources`` has the row's source; group = sweep, job_type = phase.

        Returns whether it was logged.
        """
        if row.source not in self._config["sources"]:
            return False

        def log() -> bool:
            import wandb

            run = self._session.begin(
                id=run_id(row),
                name=_name(row),
                group=row.sweep,
                job_type=row.phase,
                tags=_tags(row),
                config={key: getattr(row, key) for key in POINT_FIELDS},
            )
            if row.samples_s:
                samples: list[Any] = [[index, seconds] for index, seconds in enumerate(row.samples_s)]
                run.log({"samples": wandb.Table(columns=["run", "seconds"], data=samples)})
            run.summary.update(_summary(row))
            self._session.finish(run, exit_code=0 if row.status in ("ok", "oom", "unsupported") else 1)
            self._logged.add([row])
            return True

        return bool(self._session.attempt(log))

    def log_sweep(self, name: str, rows: Sequence[Row]) -> None:
        """Log one run for a sweep: its rows as a table and a file, and with ``report`` its figures and report."""

        def log() -> None:
            with ScratchFolder() as folder:
                files = _report(rows, name, folder) if self._config["report"] else {}
                self._log_files(name, rows, files)

        self._session.attempt(log)

    def log_report(self, name: str, rows: Sequence[Row], files: Mapping[str, Path]) -> None:
        """Log one run for a report that is written: its rows as a table and a file, its figures, and all its files.

        ``files``: name in the artifact → file.
        """
        self._session.attempt(lambda: self._log_files(name, rows, files))

    def close(self) -> None:
        """Wait until every run is written or sent, and print the folder of offline runs."""
        self._session.close()

    def _log_files(self, name: str, rows: Sequence[Row], files: Mapping[str, Path]) -> None:
        import wandb

        run = self._session.begin(name=name, group=name, job_type="sweep", tags=["sweep"], config={"sweep": name})
        columns: list[str | int] = [*POINT_FIELDS, "source", "status", "valid", *METRICS]
        data: list[Any] = [[_cell(getattr(row, str(column), None)) for column in columns] for row in rows[:TABLE_ROWS]]
        run.log({"rows": wandb.Table(columns=columns, data=data)})
        for place, file in files.items():
            if file.suffix == PICTURE:
                run.log({place.removesuffix(PICTURE): wandb.Image(str(file))})
        artifact = wandb.Artifact(f"rows-{file_name(name)}", type="rows", metadata={"rows": len(rows)})
        with artifact.new_file("rows.jsonl", encoding="utf-8") as out:
            out.writelines(f"{line_of(row)}\n" for row in rows)
        run.log_artifact(artifact)
        if files:
            artifact = wandb.Artifact(f"report-{file_name(name)}", type="report")
            for place, file in files.items():
                artifact.add_file(str(file), name=place)
            run.log_artifact(artifact)
        run.summary.update({"rows_count": len(rows)})
        self._session.finish(run)


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


def _report(rows: Sequence[Row], name: str, folder: Path) -> dict[str, Path]:
    """Write a report of the rows; returns name → file. Without figures where matplotlib is not installed."""
    from bench.report.main.sections import full_report
    from bench.report.render.document import write

    written = write(full_report(rows, name), folder, ("markdown", "csv"), (PICTURE[1:],))
    return {each: folder / each for each in written.files}


def _summary(row: Row) -> dict[str, Any]:
    """What came of a point."""
    figures = {name: getattr(row, name) for name in METRICS if getattr(row, name, None) is not None}
    outcome = ("status", "error", "source", "valid", "invalid_reason", "git_sha")
    return figures | {name: getattr(row, name) for name in outcome}


def _name(row: Row) -> str:
    if row.phase == PROGRAM:
        return f"{row.model} {row.hw} n{row.num_chips}"
    layout = [row.ffn_layout] if row.ffn_layout else []
    return " ".join([row.model, row.phase, f"b{row.batch_size}", *layout, f"n{row.num_chips}"])


def _tags(row: Row) -> list[str]:
    named = (row.model, row.hw, row.engine, row.source, row.ffn_layout, row.attn_sharding, row.weight_dtype)
    return [str(each)[:64] for each in named if each]


def _cell(value: Any) -> Any:
    return str(value) if isinstance(value, (list, dict)) else value
