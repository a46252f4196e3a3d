"""The figures on offloading: cost over batch, and a run's reads, copies and computes over time."""

from collections.abc import Callable, Sequence
from typing import Final

from bench.report.render.style import COLOURS, Drawn, legend, line_style, panels, plain_log_ticks
from bench.rows.labels import model_label
from engines.core.row import Row

DRAWN: Final = 36
"""Events that a timeline shows, the last of a run."""
LANES: Final = ("read", "copy", "compute", "write")
"""Kinds of events, from below."""


def cost_figure(rows: Sequence[Row], place: Callable[[Row], str], cost: Callable[[Row], float | None]) -> Drawn:
    """Chip-seconds of a generated token over the batch: one panel a model and format, one line a place."""
    groups = list(dict.fromkeys((row.model, row.weight_dtype) for row in rows))
    places = list(dict.fromkeys(map(place, rows)))
    colours = {each: COLOURS[number % len(COLOURS)] for number, each in enumerate(places)}
    figure, axes = panels(len(groups), width=3.8, height=3.8, share_y=True)
    for axis, (model, dtype) in zip(axes, groups, strict=True):
        mine = [row for row in rows if (row.model, row.weight_dtype) == (model, dtype)]
        for each, colour in colours.items():
            timed = sorted(
                (row.batch_size, seconds) for row in mine if place(row) == each and (seconds := cost(row)) is not None
            )
            axis.plot([x for x, _ in timed], [y for _, y in timed], **line_style("predicted", colour))
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        ticks = sorted({row.batch_size for row in mine})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_xlabel("batch")
        axis.set_title(f"{model_label(model)}, {dtype}")
        plain_log_ticks(axis.yaxis)
    axes[0].set_ylabel("chip-seconds per generated token")
    legend(figure, list(colours.items()), ["predicted"])
    caption = "Cost of a generated token over the batch. A line ends where the next batch does not fit."
    return Drawn("offload_cost", caption, figure)


def timeline_figure(row: Row) -> Drawn:
    """The last layers of a measured row's last run: one bar an event, the number of its layer in it."""
    stage, run = list(row.details["offload"].items())[-1]
    events = run["timeline"][-DRAWN:]
    first_s = min(event[2] for event in events)
    lanes = [kind for kind in LANES if any(event[0] == kind for event in events)]
    figure, (axis,) = panels(1, width=9.0, height=2.6)
    for kind, layer, start_s, end_s in events:
        lane = lanes.index(kind)
        colour = COLOURS[layer % 2 * 4 + LANES.index(kind) % 2]
        axis.barh(lane, 1e3 * (end_s - start_s), left=1e3 * (start_s - first_s), height=0.62, color=colour)
        middle_ms = 1e3 * ((start_s + end_s) / 2 - first_s)
        axis.text(middle_ms, lane + 0.34, str(layer), ha="center", va="bottom", fontsize=7, color="#555555")
    axis.set_yticks(range(len(lanes)), lanes)
    axis.set_xlabel("time (ms); above a bar, its layer")
    axis.grid(visible=False, axis="y")
    caption = (
        f"The last layers of a {stage} of {row.model} by engine={row.engine} offload={row.offload}, measured: while a "
        "layer computes, the next is copied and the one after it read."
    )
    return Drawn(f"offload_timeline_{row.engine}", caption, figure)
