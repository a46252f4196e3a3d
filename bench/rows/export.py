"""Exports stored rows as files for other programs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.rows.atomic import replaced
from bench.rows.counted import counted
from bench.rows.store import NAMES, frame_of
from bench.rows.table import Column, Table, to_csv, to_markdown
from engines.core.errors import ShardbenchError
from engines.core.row import POINT_FIELDS, Row

FORMATS: Final = ("csv", "parquet", "jsonl", "markdown")
MARKDOWN_COLUMNS: Final = (
    *POINT_FIELDS,
    "source",
    "status",
    "valid",
    "latency_s",
    "latency_low_s",
    "latency_high_s",
    "ci_low",
    "ci_high",
    "ttft_s",
    "step_time_s",
    "tokens_per_s",
    "mfu",
    "mbu",
    "mfu_of_matmul",
    "mbu_of_copy",
    "cost_chip_s_per_token",
    "cost_usd_per_mtok",
    "energy_j",
    "energy_source",
    "peak_hbm_bytes",
)


def as_text(rows: Sequence[Row], how: str) -> str:
    """Rows as csv, jsonl or markdown. CSV and JSON have SI units and fractions, Markdown the units in its headings.

    In CSV a list or mapping is one cell of JSON, and an empty cell is None.
    """
    if how == "jsonl":
        return "".join(json.dumps(row.to_dict()) + "\n" for row in rows)
    if how == "markdown":
        columns = [name for name in MARKDOWN_COLUMNS if any(getattr(row, name) is not None for row in rows)]
        return to_markdown(_table(rows, columns))
    return to_csv(_table(rows, NAMES))


def write(rows: Sequence[Row], how: str, out: Path) -> None:
    """Write rows to a file atomically.

    Raises:
        InvalidRequest: the file cannot be written.
        ShardbenchError: ``how`` is parquet, and pyarrow is not installed.
    """
    with replaced(out) as temporary:
        if how == "parquet":
            _write_parquet(rows, temporary)
        else:
            temporary.write_text(as_text(rows, how), encoding="utf-8")


def _write_parquet(rows: Sequence[Row], path: Path) -> None:
    frame = frame_of(rows)
    # Their keys differ between rows, which a parquet column does not allow.
    for name in ("versions", "conditions", "details", "origins", "load"):
        frame[name] = [None if value is None else json.dumps(value) for value in frame[name]]
    try:
        frame.to_parquet(path, index=False)
    except ImportError:
        raise ShardbenchError(
            "format=parquet: needs pyarrow, which is not installed; pip install 'shardbench[parquet]' or use format=csv"
        ) from None


def _table(rows: Sequence[Row], names: Sequence[str]) -> Table:
    content = [{name: _cell(getattr(row, name)) for name in names} for row in rows]
    return Table(name="rows", caption=counted(len(rows), "row"), columns=[Column(name) for name in names], rows=content)


def _cell(value: Any) -> Any:
    return json.dumps(value, separators=(",", ":")) if isinstance(value, (list, dict)) else value
