"""The columns of a printed table that servers under load have in place of a batch's times."""

from collections.abc import Sequence
from typing import Any, Final

from engines.core.row import Row
from engines.core.text import significant

COLUMNS: Final = (
    ("requests/s", "requests_per_s", "", 1.0),
    ("within limits/s", "goodput_requests_per_s", "", 1.0),
    ("first token (ms)", "ttft_s", "median", 1e3),
    ("its p99", "ttft_s", "p99", 1e3),
    ("per token (ms)", "tpot_s", "median", 1e3),
    ("its p99", "tpot_s", "p99", 1e3),
)
"""Heading, key of ``load``, statistic and scale."""


def load_columns(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Heading and cells [rows] of every column that a row has a figure for."""
    found = []
    for heading, key, part, scale in COLUMNS:
        cells = [_cell(row, key, part, scale) for row in rows]
        if any(cells):
            found.append((heading, cells))
    return found


def _cell(row: Row, key: str, part: str, scale: float) -> str:
    value: Any = row.load.get(key)
    if part and isinstance(value, dict):
        value = value.get(part)
    return significant(value * scale) if isinstance(value, (int, float)) else ""
