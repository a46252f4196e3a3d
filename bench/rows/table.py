"""A table, and its output as Markdown and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.rows.escape import markdown
from bench.rows.metric import formatted
from bench.rows.metrics import METRICS


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the key of a row and, if it is not a metric, its heading, scale and format."""

    key: str
    heading: str | None = None
    scale: float = 1.0
    spec: str = ""

    @property
    def title(self) -> str:
        """The heading in print."""
        if self.heading is not None:
            return self.heading
        return METRICS[self.key].title if self.key in METRICS else self.key

    @property
    def numeric(self) -> bool:
        """Whether the column is right-aligned."""
        return self.key in METRICS or bool(self.spec)

    def show(self, value: Any) -> str:
        """The printed cell."""
        if value is None:
            return ""
        if self.spec and not isinstance(value, str):  # a text stands in for a number that is not one
            return formatted(value * self.scale, self.spec)
        if self.key in METRICS and isinstance(value, (int, float)):
            return METRICS[self.key].show(value)
        return plain_text(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """``rows`` have SI units and fractions, which printing scales. ``name`` is the file name without suffix.

    ``shown`` are the rows printed in the report if the table is too long for it; the CSV file has all rows.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    shown: Sequence[Mapping[str, Any]] | None = None
    note: str = ""
    csv_keys: Sequence[str] = field(default_factory=tuple)

    @property
    def printed(self) -> Sequence[Mapping[str, Any]]:
        """The rows to print."""
        return self.rows if self.shown is None else self.shown


def plain_text(value: Any) -> str:
    """A value as a user would type it: ``[4,4,4]``."""
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(str(item) for item in value) + "]"
    return str(value)


def to_markdown(table: Table) -> str:
    """The table with its caption above, in GitHub-flavoured Markdown."""
    heads = [markdown(column.title) for column in table.columns]
    rules = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [f"**{markdown(table.caption)}**", ""]
    lines += ["| " + " | ".join(heads) + " |", "|" + "|".join(rules) + "|"]
    for row in table.printed:
        cells = (markdown(column.show(row.get(column.key))) for column in table.columns)
        lines.append("| " + " | ".join(cells) + " |")
    if table.note:
        lines += ["", markdown(table.note)]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Every row, in SI units and fractions, with row keys as header; an empty cell is None."""
    keys = list(table.csv_keys) or [column.key for column in table.columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # which it forgets for a carriage return
    writer.writerow(keys)
    for row in table.rows:
        cells = ["" if row.get(key) is None else plain_text(row[key]) for key in keys]
        (quoting if any("\r" in cell for cell in cells) else writer).writerow(cells)
    return text.getvalue()
