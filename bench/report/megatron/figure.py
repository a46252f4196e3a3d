"""Latency over the batch of both programs: a panel a model and workload."""

from collections.abc import Mapping, Sequence

from bench.report.render.style import COLOURS, Drawn, legend, line_style, panels, plain_log_ticks
from bench.rows.labels import SOURCES, model_label
from engines.core.row import Row


def over_batch(rows: Sequence[Row], names: Mapping[str, str]) -> list[Drawn]:
    """Seconds of a generation; a colour a program of ``names``, filled marks published, hollow ones predicted."""
    places = sorted({(row.model, row.input_len, row.output_len) for row in rows})
    figure, axes = panels(len(places), width=4.0, height=3.8, share_y=True)
    colours = dict(zip(names, COLOURS, strict=False))
    for axis, (model, input_len, output_len) in zip(axes, places, strict=True):
        for runtime, colour in colours.items():
            for source in SOURCES:
                mine = [
                    (row.batch_size, row.latency_s or 0.0)
                    for row in rows
                    if (row.model, row.input_len, row.output_len) == (model, input_len, output_len)
                    and (row.runtime, row.source) == (runtime, source)
                ]
                if mine:
                    axis.plot(*zip(*sorted(mine), strict=True), **line_style(source, colour))
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        ticks = (1, 2, 4, 8, 16, 32)
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_xlabel("batch")
        axis.set_title(f"{model_label(model)}, {input_len} in, {output_len} out")
    for axis in axes:
        plain_log_ticks(axis.yaxis)
    axes[0].set_ylabel("latency (s)")
    kinds = [source for source in SOURCES if any(row.source == source for row in rows)]
    legend(figure, [(names[runtime], colour) for runtime, colour in colours.items()], kinds)
    caption = "Latency of a whole generation over the batch, Megatron and FasterTransformer on the same GPUs."
    return [Drawn("megatron", caption, figure)]
