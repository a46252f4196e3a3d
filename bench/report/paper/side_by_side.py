"""A table of questions with the figure of each kind of evidence side by side, and how far each is from the print."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.report.main.tables import ERROR_COLUMN
from bench.report.paper.answers import SOURCES, Answers
from bench.rows.counted import counted
from bench.rows.labels import answered
from bench.rows.table import Column, Table

IDENTITY: Final = {
    "model": "model",
    "hw": "chip",
    "num_chips": "chips",
    "tensor_parallel": "TP",
    "pipeline_parallel": "PP",
    "phase": "phase",
    "batch_size": "batch",
    "input_len": "tokens in",
    "output_len": "tokens out",
    "weight_dtype": "weights",
    "ffn_layout": "layout",
    "attn_sharding": "attention by",
}
"""Keys of a question with their headings; a table shows those that vary in it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure of rows in a table: its key in :data:`FIGURES`, heading, scale and format."""

    figure: str
    heading: str
    scale: float = 1.0
    spec: str = ".4g"


SECONDS: Final = Shown("latency_s", "s")
STEP_MS: Final = Shown("time_s", "ms", 1e3)
MFU: Final = Shown("mfu", "MFU, %", 100.0, ".1f")
COST: Final = Shown("cost_chip_s_per_token", "chip-ms/token", 1e3)


def side_by_side(
    name: str,
    caption: str,
    answers: Sequence[Answers],
    shown: Sequence[Shown],
    *,
    note: str = "",
    also: Sequence[tuple[str, Callable[[Answers], Any]]] = (),
) -> Table:
    """One line a question. Of the first figure every source has a column; of the others those that have values.

    Beside the first figure stands its error against the published one; where nothing was published, that of the
    prediction against the compiled program. ``also`` are columns of a heading and a text of their own. The CSV file
    names the row of each figure by its ``point_id``.
    """
    keys = [key for key in IDENTITY if len({_text(each, key) for each in answers}) > 1]
    columns = [*(Column(heading) for heading, _ in also), *(Column(key, IDENTITY[key]) for key in keys)]
    first, *others = shown
    errors: list[tuple[str, str]] = []
    for source in SOURCES:
        columns.append(Column(f"{source}.{first.figure}", f"{source} ({first.heading})", first.scale, first.spec))
        if source != "published" and any(each.error(source, first.figure) is not None for each in answers):
            errors.append((source, "published"))
            columns.append(_error_column(source, "published"))
    if not errors and any(each.error("predicted", first.figure, "compiled") is not None for each in answers):
        errors.append(("predicted", "compiled"))
        columns.append(_error_column("predicted", "compiled", "predicted over compiled (%)"))
    for figure in others:
        columns += [
            Column(f"{source}.{figure.figure}", f"{source} ({figure.heading})", figure.scale, figure.spec)
            for source in SOURCES
            if any(each.value(source, figure.figure) is not None for each in answers)
        ]
    rows = [
        {heading: text(each) for heading, text in also}
        | {key: _text(each, key) for key in keys}
        | {f"{source}.{figure.figure}": each.value(source, figure.figure) for source in SOURCES for figure in shown}
        | {f"{source}.error.{against}": each.error(source, first.figure, against) for source, against in errors}
        | {"remark": _remark(each)}
        | {f"{source}.point_id": each.rows[source].point_id for source in SOURCES if source in each.rows}
        for each in answers
    ]
    if any(row["remark"] for row in rows):
        columns.append(Column("remark", "without a time"))
    return Table(
        name=name,
        caption=caption,
        columns=columns,
        rows=rows,
        note=" ".join(part for part in (note, absent(answers)) if part),
        csv_keys=[*(column.key for column in columns), *(f"{source}.point_id" for source in SOURCES)],
    )


def absent(answers: Sequence[Answers]) -> str:
    """Which kinds of evidence have no row at all; empty where each has one."""
    missing = [source for source in SOURCES if not any(source in each.rows for each in answers)]
    return f"No row of these points is {' or '.join(missing)}." if missing else ""


def rows_of(answers: Sequence[Answers]) -> str:
    """How many rows of each source there are: ``9 published rows, 30 compiled rows``."""
    counts = {source: sum(source in each.rows for each in answers) for source in SOURCES}
    return ", ".join(counted(count, f"{source} row") for source, count in counts.items() if count)


def _error_column(source: str, against: str, heading: str = "") -> Column:
    title = heading or ERROR_COLUMN.title
    return Column(f"{source}.error.{against}", title, ERROR_COLUMN.scale, ERROR_COLUMN.spec)


def _text(answers: Answers, key: str) -> Any:
    """What was asked; of a key that was left open, what was published."""
    asked = answers.point.axes()[key]
    published = answers.rows.get("published")
    if asked in (None, "auto") and published is not None:
        asked = getattr(published, key)
    return "" if asked in (None, "auto") else asked


def _remark(answers: Answers) -> str:
    """Why a row has no time that counts, for each source."""
    parts = []
    for source in SOURCES:
        row = answers.rows.get(source)
        if row is not None and row.status != "ok":
            parts.append(f"{source}: {row.status}")
        elif row is not None and (not answered(row) or answers.value(source, "latency_s") is None):
            parts.append(f"{source}: not valid")
    return ", ".join(parts)
