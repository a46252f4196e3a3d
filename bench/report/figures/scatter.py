"""What engines say over what was published."""

from collections.abc import Sequence
from typing import Final

from bench.report.evidence import SOURCES, answered, model_label
from bench.report.figures.style import COLOURS, Drawn, legend, line_style, panels, plain_log_ticks
from bench.report.join import Pair, errors_of

BAND: Final = 0.1


def against_published(pairs: Sequence[Pair]) -> Drawn | None:
    """Latency of every answered pair, with the band of ±10%; None without a pair."""
    timed = [pair for pair in pairs if answered(pair.answer) and answered(pair.reference)]
    errors = errors_of(timed)
    if errors is None:
        return None
    figure, (axis,) = panels(1, width=7.2, height=5.0)
    groups = sorted({_group(pair) for pair in timed})
    colours = {group: COLOURS[place % len(COLOURS)] for place, group in enumerate(groups)}
    kinds = [kind for kind in SOURCES if any(pair.answer.source == kind for pair in timed)]
    published = [pair.reference.latency_s or 0 for pair in timed]
    low, high = min(published) / 1.4, max(published) * 1.4
    axis.fill_between(
        [low, high],
        [low * (1 - BAND), high * (1 - BAND)],
        [low * (1 + BAND), high * (1 + BAND)],
        color="#bbbbbb",
        alpha=0.45,
        linewidth=0,
    )
    axis.plot([low, high], [low, high], color="#777777", linewidth=0.8)
    for kind in kinds:
        for group in groups:
            mine = [pair for pair in timed if pair.answer.source == kind and _group(pair) == group]
            style = line_style(kind, colours[group]) | {"linestyle": "", "markersize": 4.5, "alpha": 0.9}
            axis.plot(
                [pair.reference.latency_s or 0 for pair in mine], [pair.answer.latency_s or 0 for pair in mine], **style
            )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(low, high)
    plain_log_ticks(axis.xaxis)
    plain_log_ticks(axis.yaxis)
    axis.set_xlabel("published latency (s)")
    axis.set_ylabel("latency by the engine (s)")
    axis.text(0.03, 0.97, f"band: ±{BAND:.0%}", transform=axis.transAxes, va="top", color="#555555")
    legend(figure, [(group, colours[group]) for group in groups], kinds)
    inside = sum(abs(pair.relative_error or 0) <= BAND for pair in timed)
    caption = (
        f"Answers over published latencies of the same questions: {errors.n} pairs, {inside} within ±{BAND:.0%}, "
        f"mean error {errors.mean:.1%}."
    )
    return Drawn("against_published", caption, figure)


def _group(pair: Pair) -> str:
    return f"{model_label(pair.reference.model)} ({pair.reference.system or 'published'})"
