"""The report's tables: times and rates by model, chip and phase; published latencies and errors; failed points."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from bench.rows.escape import file_name
from bench.rows.frontier import frontier, workloads
from bench.rows.interval import coverage
from bench.rows.labels import SOURCES, answered
from bench.rows.metrics import METRICS
from bench.rows.pairing import Pair, pair_errors, pair_oom_counts
from bench.rows.table import Column, Table
from bench.rows.wrong_peaks import MBU, MFU
from engines.core.row import POINT_FIELDS, Row

MOST_PRINTED: Final = 40
"""A longer table prints a selection; its CSV has all rows."""

GROUP_KEYS: Final = ("model", "hw", "phase")
OF_MEASURED: Final = ("mfu_of_matmul", "mbu_of_copy")
"""Printed where the chip has a datasheet; on a CPU they are mfu and mbu themselves."""
INTERVAL: Final = ("latency_low_s", "latency_high_s")
"""Of a prediction; printed where a row has it."""
RATES: Final = ("tokens_per_s", "mfu", "mbu", *OF_MEASURED)
FIGURES: Final = ("latency_s", *INTERVAL, "ttft_s", "step_time_s", *RATES, "cost_chip_s_per_token", "cost_usd_per_mtok")
ROW_KEYS: Final = (*POINT_FIELDS, "source", "system", "reference", "status", "valid", "invalid_reason", *METRICS)
ERROR_COLUMN: Final = Column("relative_error", "error (%)", 100.0, "+.1f")
INTERVAL_COLUMN: Final = Column("relative_interval", "± (%)", 100.0, ".1f")


def latency_tables(rows: Sequence[Row], pairs: Sequence[Pair]) -> list[Table]:
    """One table for each model, chip and phase, with all kinds of evidence; each row states its ``source``."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.status == "ok":
            groups[(row.model, row.hw, row.phase)].append(row)
    errors = {pair.answer.point_id: pair.relative_error for pair in pairs}
    in_pairs = set(errors)
    return [_latency_table(name, groups[name], errors, in_pairs) for name in sorted(groups)]


def _latency_table(
    name: tuple[str, str, str], rows: list[Row], errors: dict[str, float | None], in_pairs: set[str]
) -> Table:
    model, hw, phase = name
    cells = [_cells(row, errors.get(row.point_id)) for row in rows]
    shown_rows = rows if len(rows) <= MOST_PRINTED else _choice(rows, in_pairs)
    chosen = {id(row) for row in shown_rows}
    shown = [cell for row, cell in zip(rows, cells, strict=True) if id(row) in chosen]
    same, differing = _split(shown_rows)
    wanted = [key for key in FIGURES if hw != "cpu" or key not in OF_MEASURED]
    figures = [key for key in wanted if any(cell.get(key) is not None for cell in shown)]
    columns = [*(Column(key) for key in (*differing, "source", "engine")), *(Column(key) for key in figures)]
    for column in (INTERVAL_COLUMN, ERROR_COLUMN, Column("note")):
        if any(cell.get(column.key) not in (None, "") for cell in shown):
            columns.append(column)
    slug = file_name("latency", model, hw, phase)
    notes = []
    if any(cell.get("relative_error") is not None for cell in shown):
        notes.append("The error is relative to the published latency of the same point.")
    if hw == "cpu" and len({row.engine for row in shown_rows}) > 1:
        notes.append(
            "hw=cpu has no datasheet: MFU and MBU are relative to what the engine's own library reached in the same "
            "process. To compare engines, compare times."
        )
    if len(shown) < len(rows):
        notes.append(
            f"{len(shown)} of {len(rows)} rows are printed: all measured, compiled and published ones, and the "
            f"predictions that have a published row or are on the Pareto frontier of cost and time. {slug}.csv has all."
        )
    caption = f"{model} on {hw}, {phase}" + (f" ({', '.join(same)})" if same else "")
    return Table(
        name=slug,
        caption=caption,
        columns=columns,
        rows=cells,
        shown=shown,
        note=" ".join(notes),
        csv_keys=(*ROW_KEYS, "relative_error"),
    )


def beside_published(pairs: Sequence[Pair]) -> list[Table]:
    """One table for each published system: its latency, and every engine's with its relative error."""
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.reference.latency_s is not None and answered(pair.answer):
            groups[pair.reference.system or "published"].append(pair)
    tables = []
    for system, group in sorted(groups.items()):
        cells = [_pair_cells(pair) for pair in group]
        _, differing = _split([pair.reference for pair in group])
        columns = [
            *(Column(key) for key in (*GROUP_KEYS, *differing)),
            Column("published_latency_s", "published latency (s)", 1.0, ".4g"),
            *(Column("source"), Column("engine"), Column("latency_s")),
            *(Column(key) for key in INTERVAL if any(cell.get(key) is not None for cell in cells)),
            ERROR_COLUMN,
            Column("reference_mfu", "published MFU (%)", 100.0, ".1f"),
            Column("mfu"),
        ]
        tables.append(
            Table(
                name=file_name("published", system),
                caption=f"Published by {group[0].reference.reference or system}"
                if len({pair.reference.reference for pair in group}) == 1
                else f"Published: {system}",
                columns=columns,
                rows=cells,
                csv_keys=(*POINT_FIELDS, *(column.key for column in columns if column.key not in POINT_FIELDS)),
            )
        )
    return tables


def error_table(pairs: Sequence[Pair]) -> Table | None:
    """Error of each engine against published latencies, by system and model, and its out-of-memory answers.

    What is printed is by system; the CSV file has the models.
    """
    groups: dict[tuple[str, str, str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        kind = (pair.answer.source, pair.answer.engine)
        system = pair.reference.system or "published"
        for group in ((system, pair.reference.model), (system, "all"), ("all", "all")):
            groups[(*kind, *group)].append(pair)
    rows: list[dict[str, Any]] = []
    for name in sorted(groups):
        cells: dict[str, Any] = dict(zip(("source", "engine", "system", "model"), name, strict=True))
        errors = pair_errors(groups[name])
        if errors is not None:
            cells |= {key: getattr(errors, key) for key in ("n", "mean", "median", "p90", "worst", "bias")}
        cells["covered"] = coverage((pair.answer, pair.reference.latency_s) for pair in groups[name])
        cells |= pair_oom_counts(groups[name])
        rows.append(cells)
    if not rows:
        return None
    spread = (("mean", "mean error (%)"), ("median", "median (%)"), ("p90", "p90 (%)"), ("worst", "worst (%)"))
    known = any(row["covered"] is not None for row in rows)
    covered = [Column("covered", "in 80% interval (%)", 100.0, ".0f")] if known else []
    columns = [
        *(Column(key) for key in ("source", "engine", "system")),
        Column("n", "rows", 1.0, ".0f"),
        *(Column(key, heading, 100.0, ".1f") for key, heading in spread),
        Column("bias", "bias (%)", 100.0, "+.1f"),
        *covered,
        Column("oom_hit", "oom hit", 1.0, ".0f"),
        Column("oom_missed", "oom missed", 1.0, ".0f"),
        Column("oom_false", "false oom", 1.0, ".0f"),
    ]
    return Table(
        name="error_by_system",
        caption="Relative error of latency, and out-of-memory answers",
        columns=columns,
        rows=rows,
        shown=[cells for cells in rows if cells["model"] == "all"],
        csv_keys=[*(column.key for column in columns[:3]), "model", *(column.key for column in columns[3:])],
    )


def unanswered_table(rows: Sequence[Row]) -> Table | None:
    """Every point without a time, with its error; measured and compiled points come first."""
    refused = sorted((row for row in rows if row.status != "ok"), key=lambda row: SOURCES.index(row.source))
    if not refused:
        return None
    cells = [_cells(row, None) | {"error": row.error} for row in refused]
    _, differing = _split(refused[:MOST_PRINTED])
    note = ""
    if len(refused) > MOST_PRINTED:
        note = f"{MOST_PRINTED} of {len(refused)} are printed; unanswered.csv has all."
    return Table(
        name="unanswered",
        caption="All points without a time, with their errors",
        columns=[
            Column(key) for key in dict.fromkeys((*GROUP_KEYS, *differing, "source", "engine", "status", "error"))
        ],
        rows=cells,
        shown=cells[:MOST_PRINTED],
        note=note,
        csv_keys=(*POINT_FIELDS, "source", "system", "reference", "status", "error"),
    )


def _cells(row: Row, relative_error: float | None) -> dict[str, Any]:
    cells = {key: getattr(row, key) for key in ROW_KEYS}
    for key in ("ffn_layout", "attn_sharding"):
        if cells[key] == "auto":
            cells[key] = None
    cells["relative_error"] = relative_error
    if row.ci_low is not None and row.ci_high is not None and row.median:
        cells["relative_interval"] = (row.ci_high - row.ci_low) / 2 / row.median
    invalid = "" if row.valid else f"not valid: {row.invalid_reason or row.error}"
    cells["note"] = "; ".join(
        each for each in (invalid, row.details.get(MFU.withheld), row.details.get(MBU.withheld)) if each
    )
    return cells


def _pair_cells(pair: Pair) -> dict[str, Any]:
    cells = _cells(pair.answer, pair.relative_error)
    # The point as it was published; the latency tables show what the engine chose.
    for key in POINT_FIELDS:
        if key != "engine":
            value = getattr(pair.reference, key)
            cells[key] = None if value == "auto" else value
    cells["published_latency_s"] = pair.reference.latency_s
    cells["reference_mfu"] = pair.reference.mfu
    return cells


def _choice(rows: Sequence[Row], in_pairs: set[str]) -> list[Row]:
    best = {id(row) for group in workloads(rows).values() for row in frontier(group)}
    return [row for row in rows if row.source != "predicted" or row.point_id in in_pairs or id(row) in best]


def _split(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Keys that all rows share (as ``key=value``), and keys in which they differ."""
    keys = [key for key in POINT_FIELDS if key not in (*GROUP_KEYS, "engine")]
    same, differing = [], []
    for key in keys:
        values = {str(getattr(row, key)) for row in rows}
        if len(values - {"None", "auto", ""}) == 0:
            continue
        if len(values) == 1:
            same.append(f"{key}={values.pop()}")
        else:
            differing.append(key)
    return same, differing
