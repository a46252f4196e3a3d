"""What a figure of a frame shows, before any library draws it: marks by colour and source, and intervals."""

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench.api.frame import title_of
from bench.rows.counted import counted
from bench.rows.interval import Segment, power_of, segment
from bench.rows.labels import SOURCES
from bench.rows.metrics import METRICS
from engines.core.errors import InvalidRequest

if TYPE_CHECKING:
    import pandas as pd

MISSING: Final = "none"
"""What the legend calls the marks of rows without a value in the column that colours them."""
SAYS: Final = ("model", "hw", "num_chips", "engine", "runtime", "phase", "batch_size", "input_len", "output_len")
"""Columns that say which row a mark is."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of one colour and one source, as printed units scale them, in the order of x."""

    label: str
    source: str
    x: list[Any]
    y: list[float]
    rows: list[str]
    segments: list[Segment]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Marks, the titles of the axes, the labels of the colours in their order, and what is not drawn."""

    marks: list[Marks]
    x_title: str
    y_title: str
    labels: list[str]
    note: str


def drawing(frame: "pd.DataFrame", x: str, y: str, color: str, *, intervals: bool) -> Drawing:
    """The drawing of column ``y`` over column ``x``.

    Raises:
        InvalidRequest: the frame lacks a column, or ``y`` has no numbers.
    """
    for key, column in (("x", x), ("y", y), ("color", color), ("source", "source")):
        _check_column(frame, key, column)
    if not _is_number(frame, y):
        numbers = [name for name in METRICS if name in frame]
        raise InvalidRequest("y", y, "has no numbers", f"use a figure, such as {', '.join(numbers[:4]) or 'latency_s'}")
    drawn = frame[frame[x].notna() & frame[y].notna()]
    is_valid = drawn["valid"].fillna(False).astype(bool) if "valid" in drawn else drawn[y].notna()
    lacking, invalid = len(frame) - len(drawn), int((~is_valid).sum())
    drawn = drawn[is_valid]
    names = drawn[color].map(_name, na_action=None)
    values = drawn[color].dropna()
    labels = list(dict.fromkeys(map(_name, values.sort_values(key=None if _is_number(drawn, color) else _texts))))
    labels += [MISSING] if drawn[color].isna().any() else []
    marks = []
    for label in labels:
        for source in _sources(drawn):
            mine = drawn[(names == label) & (drawn["source"] == source)].sort_values(x, kind="stable")
            if len(mine):
                marks.append(_marks(mine, x, y, label, source, intervals))
    said = [
        f"{counted(count, 'row')} {what}"
        for count, what in ((lacking, f"without {x} or {y}"), (invalid, "not valid"))
        if count
    ]
    note = f"not drawn: {', '.join(said)}" if said else ""
    return Drawing(marks, title_of(x), title_of(y), labels, note)


def _marks(mine: "pd.DataFrame", x: str, y: str, label: str, source: str, intervals: bool) -> Marks:
    scale_x, scale_y = (METRICS[name].scale if name in METRICS else 1.0 for name in (x, y))
    numeric = _is_number(mine, x)
    across = [float(each) * scale_x for each in mine[x]] if numeric else [_plain(each) for each in mine[x]]
    up = [float(each) * scale_y for each in mine[y]]
    segments = []
    if intervals and numeric:
        for row, here, there in zip(mine.to_dict("records"), across, up, strict=True):
            ends, phase = _interval(row), str(row.get("phase", "generate"))
            powers = power_of(x, phase), power_of(y, phase)
            if ends is not None and any(powers):
                segments.append(segment(ends, here, there, powers))
    said = [name for name in SAYS if name in mine]
    rows = [", ".join(f"{name}={_plain(row[name])}" for name in said) for row in mine[said].to_dict("records")]
    return Marks(label, source, across, up, rows, segments)


def _interval(row: dict[Any, Any]) -> tuple[float, float] | None:
    """A prediction's 80% interval over its time, or that of a measurement's median over the median; None without."""
    for low, middle, high in (("latency_low_s", "latency_s", "latency_high_s"), ("ci_low", "median", "ci_high")):
        values = [row.get(name) for name in (low, middle, high)]
        if all(isinstance(each, (int, float)) and each > 0 for each in values):
            least, at, most = (float(each) for each in values if each is not None)
            return least / at, most / at
    return None


def _check_column(frame: "pd.DataFrame", key: str, column: str) -> None:
    if column not in frame:
        near = difflib.get_close_matches(str(column), [str(each) for each in frame.columns], n=1)
        remedy = f"did you mean {near[0]}" if near else "keep it when you choose columns of the frame"
        raise InvalidRequest(key, column, "is no column of the frame", remedy)


def _is_number(frame: "pd.DataFrame", column: str) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return is_numeric_dtype(frame[column]) and not is_bool_dtype(frame[column])


def _sources(frame: "pd.DataFrame") -> list[str]:
    here = set(frame["source"])
    return [each for each in SOURCES if each in here]


def _texts(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """What a column of texts, truths, times or lists is sorted by."""
    return values.map(str)


def _name(value: Any) -> str:
    import pandas as pd

    return MISSING if not isinstance(value, (list, dict)) and pd.isna(value) else str(_plain(value))


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) or not hasattr(value, "isoformat") else value.isoformat()
