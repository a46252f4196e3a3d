"""Summary tables: rows by kind of evidence, Table 2 of the paper, and failed points."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from bench.report.claims.contenders import PALM
from bench.report.main.tables import ERROR_COLUMN
from bench.rows.labels import SOURCES, answered, by_source
from bench.rows.pairing import Pair
from bench.rows.table import Column, Table
from engines.core.row import Row

MEANING: Final = {
    "measured": "timed by shardbench",
    "compiled": "the schedule that the chip's own compiler makes, timed by a model of the chip",
    "predicted": "a closed form",
    "published": "printed by others",
}
TABLE_2: Final = "Table 2"
TABLE_2_KEYS: Final = ("phase", "batch_size", "input_len", "output_len", "weight_dtype", "ffn_layout", "attn_sharding")


def evidence_table(rows: Sequence[Row]) -> Table:
    """All four kinds of evidence with the number of rows by status."""
    cells = []
    for source in SOURCES:
        mine = by_source(rows, source)
        statuses = Counter(row.status for row in mine)
        cells.append(
            {
                "source": source,
                "meaning": MEANING[source],
                **{key: ", ".join(sorted({getattr(row, key) for row in mine})) for key in ("engine", "model", "hw")},
                "rows": len(mine),
                "valid": sum(map(answered, mine)),
                "oom": statuses["oom"],
                "other": len(mine) - statuses["ok"] - statuses["oom"],
            }
        )
    columns = [
        *(Column("source"), Column("meaning", "what it is"), Column("engine"), Column("model"), Column("hw")),
        Column("rows", "rows", 1.0, ".0f"),
        Column("valid", "valid times", 1.0, ".0f"),
        Column("oom", "out of memory", 1.0, ".0f"),
        Column("other", "unsupported or failed", 1.0, ".0f"),
    ]
    return Table(name="evidence", caption="Rows by kind of evidence", columns=columns, rows=cells)


def table_2(rows: Sequence[Row], pairs: Sequence[Pair]) -> Table | None:
    """Table 2 of the paper with each engine's latency and error; None where the store holds none of its rows."""
    published = [
        row
        for row in by_source(rows, "published")
        if row.model == PALM.model and (row.reference or "").endswith(TABLE_2) and answered(row)
    ]
    if not published:
        return None
    answers: dict[str, dict[str, Pair]] = {}
    for pair in pairs:
        if answered(pair.answer):
            answers.setdefault(pair.reference.point_id, {})[_kind(pair.answer)] = pair
    kinds = list(dict.fromkeys(kind for row in published for kind in answers.get(row.point_id, {})))
    cells: list[dict[str, Any]] = []
    for row in published:
        cell = {key: getattr(row, key) for key in TABLE_2_KEYS} | {"latency_s": row.latency_s, "mfu": row.mfu}
        for kind, pair in answers.get(row.point_id, {}).items():
            cell |= {f"{kind}.latency_s": pair.answer.latency_s, f"{kind}.error": pair.relative_error}
        cells.append(cell)
    columns = [
        *(Column(key) for key in TABLE_2_KEYS),
        Column("latency_s", "published (s)", 1.0, ".3g"),
        Column("mfu", "published MFU (%)", 100.0, ".1f"),
    ]
    for kind in kinds:
        columns += [
            Column(f"{kind}.latency_s", f"{kind} (s)", 1.0, ".3g"),
            Column(f"{kind}.error", ERROR_COLUMN.title, ERROR_COLUMN.scale, ERROR_COLUMN.spec),
        ]
    caption = f"Table 2 of Pope et al. 2022: {PALM.label}"
    return Table(name="paper_table_2", caption=caption, columns=columns, rows=cells)


def _kind(row: Row) -> str:
    return f"{row.source}, {row.engine}"


def failures_table(rows: Sequence[Row]) -> Table | None:
    """Points without a time, counted by engine, model, chip and status, each with its first error; None without any."""
    keys = ("source", "engine", "model", "hw", "status")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: SOURCES.index(row.source)):
        if row.status != "ok":
            groups.setdefault(tuple(getattr(row, key) for key in keys), []).append(row)
    if not groups:
        return None
    return Table(
        name="failures",
        caption="Points without a time",
        columns=[*(Column(key) for key in keys), Column("points", "points", 1.0, ".0f"), Column("example")],
        rows=[
            dict(zip(keys, key, strict=True)) | {"points": len(mine), "example": mine[0].error}
            for key, mine in groups.items()
        ],
    )
