"""Predicted over published times by chip and runtime, with the intervals of the predictions."""

import statistics
from collections.abc import Sequence
from typing import Any, Final

from bench.report.main.today import Compared, by_key, inside_interval
from bench.report.render.style import COLOURS, Drawn, plain_log_ticks

GREY: Final = "#dcdcdc"
WIDTH: Final = 0.62
"""Height of a strip, of which one is a unit."""


def by_chip_and_runtime(rows: Sequence[Compared]) -> Drawn | None:
    """One strip for each chip and runtime; None without a pair of times.

    A point is a published row: hollow with the constants that it helped to set, filled with its source left out. The
    grey bar is the 80% interval of the strip's predictions, which holds 80% of the points if it tells the truth.
    """
    timed = [each for each in rows if each.ratio is not None]
    if not timed:
        return None
    from matplotlib.figure import Figure

    strips = by_key(timed, lambda each: (each.pair.reference.hw, each.runtime))
    chips = list(dict.fromkeys(hw for hw, _ in strips))
    figure = Figure(figsize=(8.6, 1.7 + 0.46 * len(strips)), layout="constrained")
    axis = figure.subplots()
    for place, ((hw, _), group) in enumerate(strips.items()):
        _strip(axis, -place, group, COLOURS[chips.index(hw) % len(COLOURS)])
    axis.axvline(1.0, color="#777777", linewidth=0.8, zorder=1.5)
    axis.set_xscale("log")
    widest = max(*ratios(timed), 1 / min(ratios(timed)), 1.25) * 1.08
    axis.set_xlim(1 / widest, widest)
    plain_log_ticks(axis.xaxis)
    axis.set_yticks([-place for place in range(len(strips))], [_label(where, group) for where, group in strips.items()])
    axis.set_ylim(-len(strips) + 0.4, 0.6)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("predicted latency / published latency")
    _legend(figure, timed)
    return Drawn("predicted_over_published", _caption(timed, len(strips)), figure)


def ratios(rows: Sequence[Compared]) -> list[float]:
    """Every ratio that is drawn: in the fit, and left out of it."""
    fitted = [each.ratio for each in rows if each.ratio is not None]
    return fitted + [1 + each.left_out for each in rows if each.left_out is not None]


def _strip(axis: Any, place: int, group: Sequence[Compared], colour: str) -> None:
    intervals = [each.interval for each in group if each.interval is not None]
    if intervals:
        low, high = (statistics.median(each[end] for each in intervals) for end in (0, 1))
        axis.barh(place, high - low, left=low, height=WIDTH + 0.14, color=GREY, zorder=1)
    # Rows in the order of the store, so that the same rows are drawn at the same heights.
    heights = [place + WIDTH * (0.5 - (number + 0.5) / len(group)) for number in range(len(group))]
    common: dict[str, Any] = {"linestyle": "", "markersize": 3.6, "markeredgewidth": 0.8, "color": colour, "zorder": 3}
    axis.plot([each.ratio for each in group], heights, marker="o", markerfacecolor="none", **common)
    out = [
        (1 + each.left_out, height) for each, height in zip(group, heights, strict=True) if each.left_out is not None
    ]
    axis.plot([ratio for ratio, _ in out], [height for _, height in out], marker="o", alpha=0.75, **common)


def _label(where: tuple[str, str], group: Sequence[Compared]) -> str:
    hw, runtime = where
    return f"{runtime} on {hw} ({len(group)})"


def _legend(figure: Any, rows: Sequence[Compared]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marker: dict[str, Any] = {"marker": "o", "linestyle": "", "color": "#555555", "markersize": 4.5}
    handles: list[Any] = [Line2D([], [], label="in the fit", markerfacecolor="none", **marker)]
    if any(each.left_out is not None for each in rows):
        handles.append(Line2D([], [], label="its source left out of the fit", **marker))
    if any(each.interval is not None for each in rows):
        handles.append(Patch(color=GREY, label="80% interval (median of the rows)"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def _caption(rows: Sequence[Compared], strips: int) -> str:
    inside, told = inside_interval(rows)
    held = f"; the 80% intervals hold {inside} of {told}" if told else ""
    return (
        f"Predicted over published latency of {len(rows)} published rows, by chip and runtime ({strips}): hollow with "
        f"constants that the row helped to set, filled with constants fitted without its source{held}."
    )
