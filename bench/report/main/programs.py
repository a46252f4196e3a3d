"""The report's table of programs that somebody else wrote, which are in no table or figure of models."""

from collections.abc import Sequence
from typing import Any

from bench.rows.table import Column, Table
from engines.core.row import PROGRAM, Row


def programs_table(rows: Sequence[Row]) -> Table | None:
    """Programs timed by their compiler's schedule: a call's time and where it goes; None without any."""
    found = [row for row in rows if row.phase == PROGRAM]
    if not found:
        return None
    return Table(
        name="programs",
        caption="Programs of others, by the schedule of their compiler",
        columns=[
            Column("model", "program"),
            Column("hw"),
            Column("num_chips"),
            Column("latency_s", "a call (ms)", 1e3, ".4g"),
            Column("least_s", "at least (ms)", 1e3, ".4g"),
            Column("compute_s", "compute (ms)", 1e3, ".4g"),
            Column("exposed_s", "exposed communication (ms)", 1e3, ".4g"),
            Column("peak_hbm_bytes", "HBM (GB/chip)", 1e-9, ".4g"),
            Column("bounded_share", "not estimated by the compiler (%)", 1e2, ".3g"),
            Column("note"),
        ],
        rows=[_cells(row) for row in found],
        note="A call is one step: all programs of it, one after the other.",
    )


def _cells(row: Row) -> dict[str, Any]:
    keys = ("model", "hw", "num_chips", "latency_s", "compute_s", "peak_hbm_bytes")
    interval = row.details.get("interval_s")
    return {
        **{key: getattr(row, key) for key in keys},
        "least_s": interval[0] if interval else None,
        "exposed_s": row.details.get("exposed_s"),
        "bounded_share": row.details.get("bounded_share"),
        "note": row.error or "",
    }
