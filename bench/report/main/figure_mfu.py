"""MFU over latency, as in Figure 9 of Pope et al. 2022."""

from collections.abc import Sequence

from bench.report.claims.contenders import CONTENDERS, HEADLINE_LENGTHS, LENGTHS, Curve
from bench.report.render.style import COLOURS, Drawn, draw_segments, legend, line_style, panels, plain_log_ticks
from bench.rows.interval import SAID, ends
from bench.rows.labels import SOURCES


def mfu_over_latency(curves: Sequence[Curve]) -> Drawn | None:
    """One panel, at the lengths for which all systems were published; None without rows."""
    return _drawn([curve for curve in curves if curve.lengths == HEADLINE_LENGTHS], "figure9_mfu_over_latency")


def all_lengths(curves: Sequence[Curve]) -> Drawn | None:
    """One panel for each pair of lengths that has rows."""
    return _drawn(curves, "comparison_mfu_over_latency")


def _drawn(curves: Sequence[Curve], name: str) -> Drawn | None:
    lengths = [each for each in LENGTHS if any(curve.lengths == each for curve in curves)]
    if not lengths:
        return None
    wide = len(lengths) == 1
    figure, axes = panels(len(lengths), width=7.6 if wide else 4.3, height=4.4, share_y=True)
    uncertain = False
    colours = {contender.label: COLOURS[place] for place, contender in enumerate(CONTENDERS)}
    for axis, pair in zip(axes, lengths, strict=True):
        for curve in curves:
            if curve.lengths == pair:
                timed = [row for row in curve.rows if row.latency_s is not None and row.mfu is not None]
                x, y = [row.latency_s or 0 for row in timed], [100 * (row.mfu or 0) for row in timed]
                axis.plot(x, y, **line_style(curve.source, colours[curve.contender.label]))
                segments = ends(timed, x, y, (1, -1))
                draw_segments(axis, segments, colours[curve.contender.label])
                uncertain = uncertain or bool(segments)
        axis.set_xscale("log")
        plain_log_ticks(axis.xaxis)
        axis.set_xlabel("total latency (s)")
        axis.set_title(f"{pair[0]} tokens in, {pair[1]} out")
    # Only now: a limit set before the last panel is drawn would hold for the panels that share the axis.
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("MFU (%)")
    labels = {curve.contender.label for curve in curves}
    kinds = [kind for kind in reversed(SOURCES) if any(curve.source == kind for curve in curves)]
    legend(figure, [(label, colour) for label, colour in colours.items() if label in labels], kinds)
    caption = (
        "MFU over total latency; each point is a batch size, growing to the right. "
        f"Kinds of evidence: {', '.join(kinds)}."
    ) + (f" {SAID}" if uncertain else "")
    return Drawn(name, caption, figure)
