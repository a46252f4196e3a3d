"""The GPU study's figure: the bound over the batch against published times, and each chip's roofline."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from bench.report.render.style import COLOURS, Drawn, legend, line_style, panels, plain_log_ticks
from bench.report.studies.gpus import PHASE, hot_loop, share_without_arithmetic
from bench.rows.frontier import time_of
from bench.rows.labels import model_label
from engines.core.row import Row

LEAST: Final = 0.05
"""FLOP per byte at the left edge."""
MOST: Final = 1e4
AREA: Final = 700.0
"""Area, in square points, of a mark that takes a whole turn of the loop."""


def bounds_and_rooflines(
    name: str, caption: str, rows: Sequence[Row], published_s: Callable[[Row], float | None]
) -> Drawn:
    """A panel of times over the batch, then one for each chip: the longest instructions of a turn on its roofline."""
    timed = [row for row in rows if row.source == "compiled" and row.status == "ok"]
    chips = list(dict.fromkeys(row.hw for row in timed if hot_loop(row)))
    beside = [row for row in timed if published_s(row) is not None]
    shown = {chip: _programs([row for row in timed if row.hw == chip and hot_loop(row)]) for chip in chips}
    labels = list(dict.fromkeys(_label(row) for programs in shown.values() for row in programs))
    colours = {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(labels)}
    figure, axes = panels(len(chips) + bool(beside), width=4.9, height=4.4)
    if beside:
        _over_batch(axes[0], beside, published_s)
    for axis, chip in zip(axes[bool(beside) :], chips, strict=True):
        _roofline(axis, shown[chip], colours)
    kinds = ["compiled", "published"] if beside else []
    legend(figure, list(colours.items()), kinds)
    text = (
        f"{caption} Left: bound and published time of a whole generation. Right: the longest instructions of one turn "
        "of the loop over layers on the roofline, with the area of their share of the turn; hollow: the share of all "
        "instructions without arithmetic."
    )
    return Drawn(name, text, figure)


def _over_batch(axis: Any, rows: Sequence[Row], published_s: Callable[[Row], float | None]) -> None:
    most = max(row.num_chips for row in rows)
    mine = sorted((row for row in rows if row.num_chips == most), key=lambda row: row.batch_size)
    batches = [row.batch_size for row in mine]
    axis.plot(batches, [1e3 * (time_of(row) or 0) for row in mine], **line_style("compiled", COLOURS[7]))
    axis.plot(batches, [1e3 * (published_s(row) or 0) for row in mine], **line_style("published", COLOURS[7]))
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    plain_log_ticks(axis.xaxis, batches)
    plain_log_ticks(axis.yaxis)
    axis.set_xlabel("batch")
    axis.set_ylabel(f"{mine[0].input_len} tokens in, {mine[0].output_len} out (ms)")
    axis.set_title(f"{model_label(mine[0].model)}, {most} {mine[0].hw}")


def _roofline(axis: Any, rows: Sequence[Row], colours: dict[str, str]) -> None:
    roofs = rows[0].details["roofline"]
    bandwidth = roofs["hbm_bytes_per_s"]
    peak = roofs["matmul_flops_per_s"][rows[0].act_dtype]
    ends = [LEAST, peak / bandwidth, MOST]
    axis.plot(ends, [min(peak, bandwidth * each) / 1e12 for each in ends], color="#555555", linewidth=1.2)
    for place, row in enumerate(rows):
        loop, colour = hot_loop(row), colours[_label(row)]
        for spot in loop["longest"]:
            if spot.get("flops") and spot["bytes"]:
                x, y = spot["flops"] / spot["bytes"], spot["flops"] / spot["seconds"] / 1e12
                axis.scatter(x, y, s=AREA * spot["seconds"] / loop["seconds"], color=colour, alpha=0.55, linewidths=0)
        share = share_without_arithmetic(row) or 0.0
        height = 0.92 - 0.12 * place
        axis.scatter(
            0.06,
            height,
            s=AREA * share,
            facecolors="none",
            edgecolors=colour,
            linewidths=1.4,
            transform=axis.transAxes,
        )
        axis.text(0.12, height, f"{share:.0%}", va="center", fontsize=8, color=colour, transform=axis.transAxes)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(LEAST, MOST)
    axis.set_xlabel("FLOP per byte of HBM")
    axis.set_ylabel("attainable TFLOP/s")
    axis.set_title(f"{rows[0].hw}: {peak / 1e12:.0f} TFLOP/s, {bandwidth / 1e9:.0f} GB/s")


def _programs(rows: Sequence[Row]) -> list[Row]:
    """Of each model and phase the smallest and the largest batch on the most chips."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.phase), []).append(row)
    chosen: list[Row] = []
    for mine in groups.values():
        most = max(row.num_chips for row in mine)
        ordered = sorted((row for row in mine if row.num_chips == most), key=lambda row: row.batch_size)
        chosen += ordered if len(ordered) == 1 else [ordered[0], ordered[-1]]
    return chosen


def _label(row: Row) -> str:
    return f"{model_label(row.model)}, {PHASE[row.phase]}, batch {row.batch_size}"
