"""The report's table of servers under load, which are in no table or figure of batches."""

from collections.abc import Sequence
from typing import Any, Final

from bench.rows.table import Column, Table
from engines.core.row import PROGRAM, Row

SERVE: Final = "serve"
KNEE: Final = "request_rate_per_s"
"""Among a row's ``chosen`` keys where the rate was looked for."""
KEYS: Final = ("source", "model", "hw", "num_chips", "system", "weight_dtype", "input_len", "output_len")
OWN: Final = ("tokens_per_s", "tokens_per_s_per_chip", "mfu")
LIMITS: Final = ("ttft_limit_s", "tpot_limit_s")
OF_REQUESTS: Final = (
    ("request_rate_per_s", "", "requests/s sent", 1.0),
    ("requests_per_s", "", "requests/s", 1.0),
    ("goodput_requests_per_s", "", "within limits/s", 1.0),
    ("output_tokens_per_s", "", "output tokens/s", 1.0),
    ("ttft_s", "median", "first token (ms)", 1e3),
    ("ttft_s", "p99", "p99", 1e3),
    ("tpot_s", "median", "time per output token (ms)", 1e3),
    ("tpot_s", "p99", "p99", 1e3),
)
"""Figures of ``load``: its key, the statistic, the heading and the scale."""


def batches(rows: Sequence[Row]) -> list[Row]:
    """The rows of batches: all but those of servers under load and of programs that somebody else wrote."""
    return [row for row in rows if row.phase not in (SERVE, PROGRAM)]


def served_table(rows: Sequence[Row]) -> Table | None:
    """Servers under load: rates of all requests together, and medians and 99th percentiles over them; None without."""
    served = [row for row in rows if row.phase == SERVE]
    if not served:
        return None
    figures = [(_name(key, part), heading, scale) for key, part, heading, scale in OF_REQUESTS]
    return Table(
        name="served",
        caption="Servers under load, by the clients' own timers",
        columns=[
            *(Column(key) for key in KEYS),
            Column("batch_size", "most in flight"),
            Column("ttft_limit_s", "limit of the first token (ms)", 1e3, ".4g"),
            Column("tpot_limit_s", "limit per token (ms)", 1e3, ".4g"),
            *(Column(key) for key in OWN),
            *(Column(name, heading, scale, ".4g") for name, heading, scale in figures),
            Column("reference"),
            Column("note"),
        ],
        rows=[_cells(row) for row in served],
        note="Tokens count input and output. These are no times of a batch, and no figure or finding uses them. An "
        "empty length differs between requests.",
    )


def _cells(row: Row) -> dict[str, Any]:
    cells: dict[str, Any] = {key: getattr(row, key) for key in (*KEYS, *LIMITS, *OWN, "reference")}
    for key in ("input_len", "output_len", "batch_size"):
        cells[key] = getattr(row, key) or None
    for key, part, _, _ in OF_REQUESTS:
        value = row.load.get(key)
        cells[_name(key, part)] = value.get(part) if part and isinstance(value, dict) else value
    if cells[KNEE] is None:  # a client that does not say it; the row does
        cells[KNEE] = row.request_rate_per_s
    cells["note"] = _note(row)
    return cells


def _note(row: Row) -> str:
    if row.status != "ok":
        return f"{row.status}: {row.error}"
    found = "the largest rate under the limits" if KNEE in row.chosen else ""
    return found if row.valid else "; ".join(each for each in (found, f"not valid: {row.invalid_reason}") if each)


def _name(key: str, part: str) -> str:
    return f"{key}.{part}" if part else key
