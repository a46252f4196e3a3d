"""A series as an inline SVG: medians, their intervals, and marks at steps."""

from collections.abc import Sequence
from html import escape
from typing import Final

from bench.compare.dashboard.history import Series
from bench.compare.verdicts import REGRESSIONS, Change
from bench.run.progress import seconds
from engines.core.row import Row

MOST_POINTS: Final = 90
WIDTH, HEIGHT = 340.0, 130.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 14.0, 22.0


def chart(series: Series) -> str:
    """The last rows over time, equally spaced."""
    first = max(0, len(series.rows) - MOST_POINTS)
    shown = [(place, row) for place, row in enumerate(series.rows) if place >= first and row.latency_s is not None]
    if not shown:
        return ""
    low, high = _range([row for _, row in shown])
    step = (WIDTH - LEFT - RIGHT) / max(1, len(shown) - 1)
    parts = [_grid(low, high, shown[0][1], shown[-1][1])]
    line = []
    marks = []
    for column, (place, row) in enumerate(shown):
        assert row.latency_s is not None
        x, y = LEFT + column * step, _y(row.latency_s, low, high)
        line.append(f"{x:.1f},{y:.1f}")
        if row.ci_low is not None and row.ci_high is not None:
            top, bottom = _y(row.ci_high, low, high), _y(row.ci_low, low, high)
            marks.append(f'<line class="bar" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')
        change = series.steps.get(place)
        kind = "dot" if change is None else mark_of(change)
        tooltip = f"{row.created_at[:16]}: {_value_text(row)}" + ("" if change is None else f", {change.verdict}")
        hollow = "" if row.valid else " hollow"
        mark = f'<circle class="{kind}{hollow}" cx="{x:.1f}" cy="{y:.1f}" r="{2.5 if change is None else 4.5}">'
        marks.append(f"{mark}<title>{escape(tooltip)}</title></circle>")
    parts.append(f'<polyline class="line" points="{" ".join(line)}"/>')
    name = escape(
        f"{series.label}: {len(shown)} answers from {_value_text(shown[0][1])} to {_value_text(shown[-1][1])}",
        quote=True,
    )
    return f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{name}">{"".join([*parts, *marks])}</svg>'


def mark_of(change: Change) -> str:
    """The CSS class of a step."""
    if change.verdict in REGRESSIONS:
        return "worse"
    return "better" if change.verdict in ("faster", "mended") else "dot"


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    """Seconds at the bottom and the top: all medians and intervals with a margin of a tenth, never an empty range."""
    ends = [value for row in rows for value in (row.latency_s, row.ci_low, row.ci_high) if value is not None]
    low, high = min(ends), max(ends)
    room = max((high - low) / 10, high * 0.02)
    return max(0.0, low - room), high + room


def _y(value: float, low: float, high: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)


def _grid(low: float, high: float, first: Row, last: Row) -> str:
    parts = []
    for value in (low, (low + high) / 2, high):
        y = _y(value, low, high)
        parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6:g}" y="{y + 3.5:.1f}" text-anchor="end">{escape(seconds(value))}</text>')
    parts.append(f'<text x="{LEFT:g}" y="{HEIGHT - 6:g}">{escape(first.created_at[:10])}</text>')
    if last is not first:
        end = f'<text x="{WIDTH - RIGHT:g}" y="{HEIGHT - 6:g}" text-anchor="end">{escape(last.created_at[:10])}</text>'
        parts.append(end)
    return "".join(parts)


def _value_text(row: Row) -> str:
    text = seconds(row.latency_s)
    if row.ci_low is not None and row.ci_high is not None:
        text += f" ({seconds(row.ci_low)} to {seconds(row.ci_high)})"
    return text if row.valid else f"{text}, not valid"
