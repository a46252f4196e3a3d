"""Four quantities of the same programs over the releases of their compiler."""

from collections.abc import Sequence
from typing import Final

from bench.report.compiler.releases import QUANTITIES, Quantity, Release, program_labels, questions_of
from bench.report.render.style import COLOURS, Drawn, legend, line_style, panels, plain_log_ticks
from engines.core.row import Row

BELOW: Final = 0.04
"""Between the crosses of two refused programs, as a fraction of the panel's height."""
LEAST_SPAN: Final = 0.005
"""Least distance from 1 that an axis shows, so that nothing looks like much."""
WIDEST_LINEAR: Final = 2.0
"""Ratio between the largest and the smallest value from which an axis is logarithmic."""


def over_releases(releases: Sequence[Release]) -> Drawn:
    """A panel a quantity and a line a program, relative to the first release that answered it.

    A cross at the foot of the first panel is a program that the release did not answer.
    """
    programs = questions_of(releases)
    figure, axes = panels(len(QUANTITIES), width=4.2, height=4.4)
    places = range(len(releases))
    for axis, quantity in zip(axes, QUANTITIES, strict=True):
        shown = [1.0]
        for number, key in enumerate(programs):
            values = relative([each.rows.get(key) for each in releases], quantity)
            points = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
            shown += [value for _, value in points]
            style = line_style("compiled", COLOURS[number % len(COLOURS)])
            axis.plot([place for place, _ in points], [value for _, value in points], **style)
        low, high = min(shown), max(shown)
        axis.set_ylim(min(low, 1 - LEAST_SPAN) - 0.1 * (high - low), max(high, 1 + LEAST_SPAN) + 0.1 * (high - low))
        if low > 0 and high / low > WIDEST_LINEAR:
            axis.set_yscale("log")
            axis.set_ylim(low / 1.2, high * 1.2)
            plain_log_ticks(axis.yaxis)
        axis.axhline(1.0, color="#777777", linewidth=0.8, zorder=1.5)
        axis.set_title(quantity.name)
        axis.set_xticks(list(places), [_tick(each) for each in releases], rotation=90, fontsize=8)
        axis.set_xlim(-0.5, len(releases) - 0.5)
    refused = {key for key in programs if any(_is_refused(each.rows.get(key)) for each in releases)}
    for height, (number, key) in enumerate((n, k) for n, k in enumerate(programs) if k in refused):
        crosses = [place for place in places if _is_refused(releases[place].rows.get(key))]
        colour = COLOURS[number % len(COLOURS)]
        foot = [0.03 + BELOW * height] * len(crosses)
        axes[0].plot(crosses, foot, linestyle="", marker="x", color=colour, transform=axes[0].get_xaxis_transform())
    axes[0].set_ylabel("relative to the first release")
    names = [(name, COLOURS[place % len(COLOURS)]) for place, name in enumerate(program_labels(releases).values())]
    legend(figure, names, ["compiled"], [("no answer", "x")] if refused else [])
    caption = (
        f"{len(programs)} programs under {len(releases)} releases of their compiler, {releases[0].label} to "
        f"{releases[-1].label}, relative to the first release that answered."
    )
    return Drawn("compiler_releases", caption, figure)


def relative(rows: Sequence[Row | None], quantity: Quantity) -> list[float | None]:
    """A quantity of a program, over the first of it that is known and not zero."""
    values = [quantity.of(row) for row in rows]
    first = next((value for value in values if value), None)
    return [None if value is None or first is None else value / first for value in values]


def _is_refused(row: Row | None) -> bool:
    return row is not None and row.status != "ok"


def _tick(release: Release) -> str:
    """The versions alone where one library differs; else its label."""
    name, _, version = release.label.partition(" ")
    return version if name and "," not in release.label else release.label
