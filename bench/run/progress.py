"""The output of ``shardbench run``: rows on stdout; on stderr a progress bar, or a line now and then in a log."""

import json
import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from bench.rows.counted import counted
from bench.rows.metrics import METRICS
from bench.run import terminal
from bench.run.load_columns import load_columns
from bench.run.schedule import InOrder
from bench.run.time_left import TimeLeft
from engines.core.row import POINT_FIELDS, Row
from engines.core.text import significant

MOST_ROWS_SHOWN = 60
LINE_EVERY_S = 30.0
"""Seconds between two lines of progress in a log."""
QUALITY = (
    "bf16_max_relative_error",
    "bf16_kl_divergence",
    "quality_kl",
    "quality_agreement",
    "quality_perplexity",
)
COSTS = ("cost_usd_per_mtok",)


class Output:
    """Prints rows. ``how``: table (at the end, in ``order``), json (one per line, as each point ends) or none."""

    def __init__(self, how: str, total: int, order: InOrder | None = None, left: TimeLeft | None = None) -> None:
        self._how = how
        self._total = total
        self._order, self._left = order, left
        self._rows: list[Row] = []
        self._failed = 0
        self._done = 0
        self._last_line = time.monotonic()
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> "Output":
        if sys.stderr.isatty():
            self._progress = Progress(
                TextColumn("points"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[failed]} failed, {task.fields[left]} left{task.fields[to_go]}"),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
            )
            self._task = self._progress.add_task(
                "points", total=self._total, failed=0, left=self._total, to_go=self._to_go()
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, row: Row, *, new: bool) -> None:
        """Count a row, and print it now if rows are printed as JSON."""
        self._done += 1
        self._failed += row.status in ("failed", "timeout")
        if self._left is not None:
            self._left.ended(row, new=new)
        if self._how == "json":
            print(json.dumps(row.to_dict()), flush=True)
        elif self._how == "table":
            self._rows.append(row)
        if self._progress is not None:
            left = self._total - self._done
            to_go = self._to_go()
            self._progress.update(self._task, completed=self._done, failed=self._failed, left=left, to_go=to_go)
        elif self._how != "none" and time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            print(
                f"{self._done} of {counted(self._total, 'point')}, {self._failed} failed{self._to_go()}",
                file=sys.stderr,
                flush=True,
            )

    def _to_go(self) -> str:
        text = "" if self._left is None else self._left.text()
        return f", {text}" if text else ""

    def close(self, stored: int, results_dir: str) -> None:
        """Print the table, and on stderr the number of points and the folder of the rows."""
        if self._progress is not None:
            self._progress.stop()
        if self._how == "table" and self._rows:
            rows = self._rows if self._order is None else self._order.sorted(self._rows)
            print_table(rows[:MOST_ROWS_SHOWN])
            if len(self._rows) > MOST_ROWS_SHOWN:
                print(f"… and {len(self._rows) - MOST_ROWS_SHOWN} more; shardbench report shows all")
        if self._how != "none":
            reused = f", {stored} of them already stored" if stored else ""
            print(f"{counted(self._total, 'point')}{reused}; rows in {results_dir}", file=sys.stderr)


def print_table(rows: list[Row]) -> None:
    """Rows as a table on stdout, below a line with the keys that all rows share."""
    table = terminal.table()
    same, differing = _split(rows)
    for name in differing:
        table.add_column(name, overflow="fold")
    predicted = any(row.latency_low_s is not None for row in rows)
    times = ["latency", *(["80% interval"] if predicted else []), "step"]
    times = times if any(row.phase != "serve" for row in rows) else []  # a server has no time of a batch
    loads = load_columns(rows)
    for heading in ("source", *times, *(heading for heading, _ in loads), "MFU"):
        table.add_column(heading, justify="left" if heading == "source" else "right", overflow="fold")
    # The error of quantisation, and the cost in dollars, if any row has one.
    quality = [METRICS[name] for name in (*QUALITY, *COSTS) if any(getattr(row, name) is not None for row in rows)]
    for metric in quality:
        table.add_column(metric.title, justify="right", overflow="fold")
    table.add_column("note", overflow="fold")
    for number, row in enumerate(rows):
        timed = [seconds(row.latency_s), *([_interval(row)] if predicted else []), seconds(row.step_time_s)]
        table.add_row(
            *(_cell(getattr(row, name)) for name in differing),
            row.source,
            *(timed if times else []),
            *(cells[number] for _, cells in loads),
            "" if row.mfu is None else f"{row.mfu:.1%}",
            *(metric.show(getattr(row, metric.name)) for metric in quality),
            _note(row),
        )
    console = terminal.console(240)
    if same:
        console.print(", ".join(same), style="dim")
    console.print(table)


def _split(rows: list[Row]) -> tuple[list[str], list[str]]:
    """The point's keys that all rows share (as ``key=value``), and those that differ."""
    names = POINT_FIELDS
    values = {name: [getattr(row, name) for row in rows] for name in names}
    differing = [name for name in names if len({str(value) for value in values[name]}) > 1]
    same = [
        f"{name}={_cell(values[name][0])}"
        for name in names
        if name not in differing and values[name][0] not in (None, "auto")
    ]
    return same, differing


def _interval(row: Row) -> str:
    return "" if row.latency_low_s is None else f"{seconds(row.latency_low_s)} to {seconds(row.latency_high_s)}"


def _note(row: Row) -> str:
    if row.status != "ok":
        return f"{row.status}: {row.error}"
    return "" if row.valid else f"not valid: {row.invalid_reason}"


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def seconds(value: float | None) -> str:
    """A time with its unit: s, ms or µs; empty for None."""
    if value is None:
        return ""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale:
            return f"{significant(value / scale)} {unit}"
    return f"{significant(value / 1e-6)} µs"
