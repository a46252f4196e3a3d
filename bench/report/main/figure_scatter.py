"""Latencies of the engines over published ones."""

from collections.abc import Sequence
from typing import Any, Final

from bench.report.render.style import COLOURS, Drawn, draw_segments, legend, line_style, panels, plain_log_ticks
from bench.rows.interval import SAID, coverage, ends
from bench.rows.labels import SOURCES, answered
from bench.rows.pairing import Pair, pair_errors

BAND: Final = 0.1
GREY: Final = "#e2e2e2"


def against_published(pairs: Sequence[Pair]) -> Drawn | None:
    """Latency and relative error of every pair with times, with the band of ±10%; None without a pair."""
    timed = [pair for pair in pairs if answered(pair.answer) and answered(pair.reference)]
    errors = pair_errors(timed)
    if errors is None:
        return None
    figure, (left, right) = panels(2, width=5.2, height=4.4)
    groups = sorted({_group(pair) for pair in timed})
    colours = {group: COLOURS[place % len(COLOURS)] for place, group in enumerate(groups)}
    kinds = [kind for kind in SOURCES if any(pair.answer.source == kind for pair in timed)]
    for kind in kinds:
        for group in groups:
            mine = [pair for pair in timed if pair.answer.source == kind and _group(pair) == group]
            style = line_style(kind, colours[group]) | {"linestyle": "", "markersize": 4.5, "alpha": 0.9}
            published = [pair.reference.latency_s or 0 for pair in mine]
            answers = [pair.answer for pair in mine]
            seconds = [row.latency_s or 0 for row in answers]
            left.plot(published, seconds, **style)
            right.plot(published, [100 * (pair.relative_error or 0) for pair in mine], **style)
            segments = ends(answers, published, seconds, (0, 1))
            draw_segments(left, segments, colours[group])
            over = [tuple((x, 100 * (y / x - 1)) for x, y in segment) for segment in segments]
            draw_segments(right, [(low, high) for low, high in over], colours[group])
    _band(left, right, [pair.reference.latency_s or 0 for pair in timed])
    legend(figure, [(group, colours[group]) for group in groups], kinds)
    inside = sum(abs(pair.relative_error or 0) <= BAND for pair in timed)
    caption = (
        f"Latency of the engines over the published latency of the same point, and its relative error: {inside} of "
        f"{errors.n} points lie in the grey band of ±{BAND:.0%}."
    )
    covered = coverage((pair.answer, pair.reference.latency_s) for pair in timed)
    if covered is not None:
        caption += f" {SAID} {covered:.0%} of them reach the published time."
    return Drawn("against_published", caption, figure)


def _band(left: Any, right: Any, published: Sequence[float]) -> None:
    """Axes, labels and the band in both panels."""
    low, high = min(published) / 1.4, max(published) * 1.4
    ends = [low, high]
    left.fill_between(ends, [each * (1 - BAND) for each in ends], [each * (1 + BAND) for each in ends], color=GREY)
    left.plot(ends, ends, color="#777777", linewidth=0.8, zorder=1.5)
    left.set_yscale("log")
    left.set_ylim(low, high)
    right.axhspan(-100 * BAND, 100 * BAND, color=GREY, linewidth=0)
    right.axhline(0, color="#777777", linewidth=0.8, zorder=1.5)
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xlim(low, high)
        axis.set_xlabel("published latency (s)")
        plain_log_ticks(axis.xaxis)
    plain_log_ticks(left.yaxis)
    left.set_ylabel("latency by the engine (s)")
    right.set_ylabel("relative error (%)")
    left.set_title("latency")
    right.set_title("relative error")


def _group(pair: Pair) -> str:
    return pair.reference.hw
