"""Padded over packed times over the batch: a panel a question and engine that measured, a colour a law."""

from collections.abc import Sequence

from bench.report.packing.pairs import LAWS, PackingPair, question
from bench.report.render.style import COLOURS, Drawn, legend, line_style, panels, plain_log_ticks
from bench.rows.labels import SOURCES


def packing_figure(pairs: Sequence[PackingPair]) -> list[Drawn]:
    """The prefills; none without a valid pair. Of decode the table says all: its steps gain little."""
    shown = [pair for pair in pairs if pair.valid and pair.packed.phase == "prefill"]
    places = list(dict.fromkeys(map(_place, shown)))
    if not places:
        return []
    figure, axes = panels(len(places), width=3.7, height=3.9, share_y=True)
    colours = dict(zip(LAWS, COLOURS, strict=False))
    for axis, place in zip(axes, places, strict=True):
        mine = [pair for pair in shown if _place(pair) == place]
        for law, source in dict.fromkeys((str(pair.packed.lengths), pair.packed.source) for pair in mine):
            own = [pair for pair in mine if (pair.packed.lengths, pair.packed.source) == (law, source)]
            batches = [pair.packed.batch_size for pair in own]
            axis.plot(batches, [pair.ratio or 0.0 for pair in own], **line_style(source, colours[law]))
            axis.axhline(own[0].packed.input_len / own[0].law.mean, color=colours[law], linewidth=0.8, alpha=0.6)
        axis.set_xscale("log", base=2)
        ticks = sorted({pair.packed.batch_size for pair in mine})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_yscale("log")
        axis.set_xlabel("batch")
        axis.set_title("\n".join(place), fontsize=9)
    for axis in axes:
        plain_log_ticks(axis.yaxis)
    axes[0].set_ylabel("padded / packed time")
    laws = [(law, colours[law]) for law in LAWS if any(pair.packed.lengths == law for pair in shown)]
    sources = [each for each in SOURCES if any(pair.packed.source == each for pair in shown)]
    legend(figure, laws, sources, [("tokens: L/E[length]", "_")])
    caption = (
        "Time of padded prompts over that of packed ones. Thin lines: L/E[length], their tokens in a large "
        "batch; the lengths that are drawn for a small one, and attention, can give more or less."
    )
    return [Drawn("packing", caption, figure)]


def _place(pair: PackingPair) -> tuple[str, ...]:
    """The lines of a panel's title. What was computed stands together; each engine that measured is by itself."""
    return (*question(pair).split(", "), f"engine={pair.packed.engine}" if pair.packed.source == "measured" else "")
