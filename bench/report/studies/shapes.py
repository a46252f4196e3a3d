"""How a study is shown: lines over a number, or bars by what bounds them; each draws a figure and makes its table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from bench.report.studies import figures
from bench.report.studies.figures import Label, Number
from bench.rows.frontier import time_of
from bench.rows.labels import by_source
from bench.rows.table import Column, Table
from engines.core.row import Row

if TYPE_CHECKING:
    from bench.report.render.style import Drawn

OUT_OF_MEMORY: Final = "oom"


class Shape(Protocol):
    """A figure and a small table of a study's rows."""

    def draw(self, name: str, caption: str, rows: Sequence[Row]) -> "Drawn":
        """The figure, called ``name``."""

    def table(self, name: str, rows: Sequence[Row]) -> Table | None:
        """The compiled rows as one small table, called ``name``; None where there is none but that of all rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """One panel a group, one line a variant, over the number ``x``; with ``memory`` also what a chip holds."""

    panel: Label
    line: Label
    x: Number
    x_label: str
    mfu: bool = False
    memory: bool = False

    def draw(self, name: str, caption: str, rows: Sequence[Row]) -> "Drawn":
        """:func:`figures.lines_over`."""
        return figures.lines_over(
            name,
            caption,
            rows,
            panel=self.panel,
            line=self.line,
            x=self.x,
            x_label=self.x_label,
            mfu=self.mfu,
            memory=self.memory,
        )

    def table(self, name: str, rows: Sequence[Row]) -> Table | None:
        """A line a value of ``x``, a column a variant."""
        several = len({self.panel(row) for row in rows}) > 1
        return _pivot(
            name,
            rows,
            heading=self.x_label,
            index=lambda row: f"{self.x(row):,.0f}",
            column=lambda row: f"{self.panel(row)}, {self.line(row)}" if several else self.line(row),
            mfu=self.mfu,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """One panel a group, one bar a row, stacked of what its time goes to."""

    panel: Label
    bar: Label
    panel_label: str
    published_s: Callable[[Row], float | None] | None = None

    def draw(self, name: str, caption: str, rows: Sequence[Row]) -> "Drawn":
        """:func:`figures.bars_over`."""
        return figures.bars_over(name, caption, rows, panel=self.panel, bar=self.bar, published_s=self.published_s)

    def table(self, name: str, rows: Sequence[Row]) -> Table | None:
        """A line a group, a column a bar."""
        return _pivot(name, rows, heading=self.panel_label, index=self.panel, column=self.bar, mfu=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooflines:
    """Times over the batch with the published ones, and a roofline for each chip."""

    published_s: Callable[[Row], float | None]

    def draw(self, name: str, caption: str, rows: Sequence[Row]) -> "Drawn":
        """:func:`bounds_and_rooflines`."""
        from bench.report.studies.figure_roofline import bounds_and_rooflines

        return bounds_and_rooflines(name, caption, rows, self.published_s)

    def table(self, name: str, rows: Sequence[Row]) -> Table | None:
        """None."""


def _pivot(name: str, rows: Sequence[Row], *, heading: str, index: Label, column: Label, mfu: bool) -> Table | None:
    """Times or MFU of the compiled rows: a line for each ``index``, a column for each ``column``; None without rows.

    The CSV holds seconds and fractions, empty where a row has no time.
    """
    mine = [row for row in by_source(rows, "compiled") if row.status in ("ok", "oom")]
    if not mine:
        return None
    short = max((time_of(row) or 0 for row in mine), default=0) < 1
    scale, spec, unit = (
        (100.0, ".1f", "MFU (%)") if mfu else (1e3, ".3g", "time (ms)") if short else (1.0, ".3g", "time (s)")
    )
    cells: dict[str, dict[str, Any]] = {}
    shown: dict[str, dict[str, Any]] = {}
    for row in mine:
        value = row.mfu if mfu else time_of(row)
        line, key = index(row).replace("\n", " "), column(row)
        cells.setdefault(line, {"index": line})[key] = value if row.status == "ok" else None
        text = OUT_OF_MEMORY if row.status == "oom" else "" if value is None else format(scale * value, spec)
        shown.setdefault(line, {"index": line})[key] = text
    columns = [Column("index", heading), *(Column(key) for key in dict.fromkeys(column(row) for row in mine))]
    caption = f"Compiled {unit}" + (f"; {OUT_OF_MEMORY}: does not fit" if any(r.status == "oom" for r in mine) else "")
    return Table(name=name, caption=caption, columns=columns, rows=list(cells.values()), shown=list(shown.values()))
