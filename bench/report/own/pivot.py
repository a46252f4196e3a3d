"""A pivot table of stored rows: one figure by two sets of keys, and never of several sources in one cell."""

import difflib
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from bench.rows.counted import counted
from bench.rows.metrics import METRICS
from bench.rows.table import Column, Table, plain_text
from engines.core.errors import InvalidRequest
from engines.core.row import Row

AGGREGATES: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {
    "median": statistics.median,
    "mean": statistics.fmean,
    "min": min,
    "max": max,
    "count": len,
}
_TYPES: Final = {
    each.name: each.type.__name__ if isinstance(each.type, type) else str(each.type) for each in fields(Row)
}
KEYS: Final = tuple(name for name, kind in _TYPES.items() if not kind.startswith(("dict", "list[float]")))
"""Keys of a row by which rows can be grouped and chosen."""
VALUES: Final = tuple(
    name for name in KEYS if _TYPES[name].split(" ")[0] in ("int", "float") and name not in ("schema_version",)
)
"""Keys of a row that are numbers."""
MOST_COLUMNS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to show: ``value`` by the keys of lines (``rows``) and ``columns``, of rows with ``where``'s values.

    Without an ``aggregate`` a cell shows the value of its one row. ``where`` has the values that a key may have.

    Raises:
        InvalidRequest: a key is not one of a row's, or of numbers, or stands in both sets.
    """

    rows: Sequence[str]
    value: str
    columns: Sequence[str] = ()
    where: Mapping[str, Sequence[str]] | None = None
    aggregate: str | None = None

    def __post_init__(self) -> None:
        for name, keys, known in (
            ("rows", self.rows, KEYS),
            ("columns", self.columns, KEYS),
            ("where", list(self.where or {}), KEYS),
            ("value", [self.value], VALUES),
            ("aggregate", [self.aggregate] if self.aggregate else [], tuple(AGGREGATES)),
        ):
            for key in keys:
                if key not in known:
                    near = difflib.get_close_matches(str(key), known, n=3, cutoff=0.5)
                    what = "is no number of a row" if name == "value" and key in KEYS else "is not known"
                    raise InvalidRequest(name, key, what, f"use {' or '.join(near) if near else ', '.join(known)}")
        if not self.rows:
            raise InvalidRequest("rows", "[]", "is an empty list", "use at least one key")
        twice = [key for key, count in Counter([*self.rows, *self.columns]).items() if count > 1]
        if twice:
            raise InvalidRequest("columns", twice[0], "is asked for twice", "name each key once, in rows or in columns")


def conditions(texts: Sequence[str]) -> dict[str, list[str]]:
    """``["hw=tpu-v4", "hw=tpu-v5e"]`` as what ``where`` takes: of one key any of its values.

    Raises:
        InvalidRequest: a text is not ``key=value``.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidRequest("where", text, "is not key=value", "write where=[phase=decode,hw=tpu-v4]")
        found[key].append(value)
    return dict(found)


def chosen(rows: Sequence[Row], where: Mapping[str, Sequence[str]] | None) -> list[Row]:
    """The rows whose keys have one of those values, as a user types them."""
    return [
        row for row in rows if all(plain_text(getattr(row, key)) in values for key, values in (where or {}).items())
    ]


def pivot(rows: Sequence[Row], question: Question, name: str = "pivot") -> Table:
    """The table. Its note says in one sentence each what was split, left out, or differs within a cell.

    Rows of several sources get a line each: ``source`` is added to the keys of lines where it is in neither set.

    Raises:
        InvalidRequest: no row has what was asked, or the columns are too many to read.
    """
    mine = chosen(rows, question.where)
    if not mine:
        raise InvalidRequest("where", _where(question), "holds for no row", "ask for other values, or leave some out")
    notes = []
    by = list(question.rows)
    if len({row.source for row in mine}) > 1 and "source" not in (*by, *question.columns):
        by.append("source")
        notes.append("Kinds of evidence are not mixed: source was added to the keys of lines.")
    cells: dict[tuple[Any, ...], dict[tuple[Any, ...], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in mine:
        cells[_values(row, by)][_values(row, question.columns)].append(row)
    across = sorted({column for line in cells.values() for column in line}, key=_order)
    if len(across) > MOST_COLUMNS:
        text = ",".join(question.columns)
        remedy = f"choose fewer rows with where=, or swap rows and columns: {MOST_COLUMNS} are the most"
        raise InvalidRequest("columns", text, f"has {len(across)} values", remedy)
    scale, spec = _format(question)
    heads = _headings(question, across)
    columns = [*(Column(key) for key in by), *(Column(head, head, scale, spec) for head in heads.values())]
    lines = [
        dict(zip(by, line, strict=True))
        | {heads[column]: _cell(cells[line][column], question) for column in across if column in cells[line]}
        for line in sorted(cells, key=_order)
    ]
    notes += _notes(mine, [group for line in cells.values() for group in line.values()], question, by)
    title = METRICS[question.value].title if question.value in METRICS else question.value
    what = title if question.aggregate in (None, "count") else f"{question.aggregate} of {title}"
    over = f" and {', '.join(question.columns)}" if question.columns else ""
    what = f"rows with {title}" if question.aggregate == "count" else what
    caption = f"{what[0].upper()}{what[1:]} by {', '.join(by)}{over}"
    return Table(name=name, caption=caption, columns=columns, rows=lines, note=" ".join(notes))


def value_of(row: Row, key: str) -> float | None:
    """The figure, where the row is valid and the figure is a finite number."""
    value = getattr(row, key)
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable and _counts(row) else None


def _counts(row: Row) -> bool:
    """Whether figures of the row count; one of a server under load has rates, but no time of a batch."""
    return row.status == "ok" and row.valid


def _cell(rows: Sequence[Row], question: Question) -> float | str | None:
    """The value; ``3 rows`` where no aggregate was asked for; the status where no row has a value."""
    values = [value for row in rows if (value := value_of(row, question.value)) is not None]
    if not values:
        return ", ".join(f"{count} {status}" if count > 1 else status for status, count in _why(rows).items())
    if question.aggregate is not None:
        return AGGREGATES[question.aggregate](values)
    return values[0] if len(values) == 1 else f"{len(values)} rows"


def _why(rows: Sequence[Row]) -> dict[str, int]:
    """How often each reason is why a row has no value, by the name of the reason."""
    reasons = Counter("no value" if _counts(row) else "not valid" if row.status == "ok" else row.status for row in rows)
    return dict(sorted(reasons.items()))


def _notes(mine: Sequence[Row], groups: Sequence[Sequence[Row]], question: Question, by: Sequence[str]) -> list[str]:
    known = {id(row) for row in mine if value_of(row, question.value) is not None}
    notes = []
    without = [row for row in mine if id(row) not in known]
    if without:
        reasons = ", ".join(f"{count} {reason}" for reason, count in _why(without).items())
        notes.append(f"{counted(len(without), 'row')} without a valid {question.value} count in no value ({reasons}).")
    groups = [[row for row in group if id(row) in known] for group in groups]
    most = max((len(group) for group in groups), default=0)
    if most > 1:
        grouped = (*by, *question.columns)
        differing = [
            key
            for key in VARYING
            if key not in grouped and any(len({plain_text(getattr(row, key)) for row in group}) > 1 for group in groups)
        ]
        differ = f", which differ in {', '.join(differing)}" if differing else ""
        if question.aggregate is None:
            notes.append(f"Up to {most} rows meet in a cell{differ}: group by those keys, or ask for an aggregate.")
        else:
            notes.append(f"A cell is over up to {most} rows{differ}.")
    return notes


VARYING: Final = tuple(name for name in KEYS[: KEYS.index("schema_version")] if name not in ("source", "chosen"))
"""Keys of the point, in which rows of one cell may differ."""


def _values(row: Row, keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(plain_text(value) if isinstance(value := getattr(row, key), list) else value for key in keys)


def _order(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numbers by size, then texts, then what is missing."""
    return tuple(
        (2, 0, "") if value is None else (0, value, "") if isinstance(value, (int, float)) else (1, 0, str(value))
        for value in values
    )


def _headings(question: Question, across: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], str]:
    """A heading for each column, another one for every other; a number is told with its key."""
    found: dict[tuple[Any, ...], str] = {}
    for column in across:
        parts = [
            str(value) if isinstance(value, str) and value else f"{key}={value}"
            for key, value in zip(question.columns, column, strict=True)
        ]
        head = ", ".join(parts) or question.value
        while head in (*found.values(), *question.rows, "source"):
            head += "′"
        found[column] = head
    return found


def _format(question: Question) -> tuple[float, str]:
    if question.aggregate == "count":
        return 1.0, ",.0f"
    metric = METRICS.get(question.value)
    return (1.0, ".4g") if metric is None else (metric.scale, metric.spec)


def _where(question: Question) -> str:
    return "[" + ",".join(f"{key}={value}" for key, values in (question.where or {}).items() for value in values) + "]"
