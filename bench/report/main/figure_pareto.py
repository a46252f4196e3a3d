"""Cost against latency, as in Figure 1 of Pope et al. 2022."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from bench.report.render.style import COLOURS, Drawn, draw_segments, line_style, panels, plain_log_ticks
from bench.rows.escape import file_name
from bench.rows.frontier import frontier, time_of
from bench.rows.interval import SAID, ends, relative_interval
from bench.rows.labels import answered, by_source, model_label
from bench.rows.methods import plain_rows
from engines.core.row import Row
from engines.core.runtime import AUTO

CONTEXT: Final = 2048
"""Tokens of context in the paper's figure; the workload nearest to it is drawn."""
MARKERS: Final = ("o", "s", "^", "D")


def cost_against_latency(rows: Sequence[Row]) -> list[Drawn]:
    """One figure a chip and runtime: decode on the left, prefill on the right, from predicted rows without a method."""
    plain = plain_rows(by_source(rows, "predicted"))
    predicted = [row for row in plain if answered(row) and row.cost_chip_s_per_token is not None]
    drawn = []
    machines = sorted({(row.hw, row.runtime or AUTO) for row in predicted})
    for hw, runtime in machines:
        several = len({other for chip, other in machines if chip == hw}) > 1
        mine = [row for row in predicted if (row.hw, row.runtime or AUTO) == (hw, runtime)]
        figure = _machine(hw, runtime if several else "", mine)
        if figure is not None:
            drawn.append(figure)
    return drawn


def _machine(hw: str, runtime: str, rows: Sequence[Row]) -> Drawn | None:
    """``runtime`` is told where the chip has figures of several, and empty otherwise."""
    chosen = {phase: _workload([row for row in rows if row.phase == phase]) for phase in ("decode", "prefill")}
    chosen = {phase: mine for phase, mine in chosen.items() if len({row.num_chips for row in mine}) > 1}
    if not chosen:
        return None
    figure, axes = panels(len(chosen), width=5.4, height=4.6)
    # A frontier over chips needs several numbers of chips.
    chips: dict[str, set[int]] = {}
    for row in (row for mine in chosen.values() for row in mine):
        chips.setdefault(row.model, set()).add(row.num_chips)
    shown = [model for model, counts in chips.items() if len(counts) > 1]
    models = sorted(shown, key=lambda model: (_size(model, rows), model))
    formats = sorted({row.weight_dtype for mine in chosen.values() for row in mine})
    for axis, (phase, mine) in zip(axes, chosen.items(), strict=True):
        scale, unit = (1e3, "ms") if phase == "decode" else (1.0, "s")
        for colour, model in zip(COLOURS, models, strict=False):
            of_model = [row for row in mine if row.model == model]
            axis.scatter(
                [scale * (time_of(row) or 0) for row in of_model],
                [1e3 * (row.cost_chip_s_per_token or 0) for row in of_model],
                s=5,
                color=colour,
                alpha=0.15,
                linewidths=0,
            )
            for marker, weight_dtype in zip(MARKERS, formats, strict=False):
                best = frontier([row for row in of_model if row.weight_dtype == weight_dtype])
                if not best:
                    continue
                style = line_style("predicted", colour) | {"marker": marker, "markersize": 4.5}
                x = [scale * (time_of(row) or 0) for row in best]
                y = [1e3 * (row.cost_chip_s_per_token or 0) for row in best]
                axis.plot(x, y, label=f"{model_label(model)}, {weight_dtype}", **style)
                draw_segments(axis, ends(best, x, y, (1, 1)), colour)
        axis.set_xscale("log")
        axis.set_yscale("log")
        plain_log_ticks(axis.xaxis)
        plain_log_ticks(axis.yaxis)
        row = mine[0]
        axis.set_xlabel(f"decode step ({unit})" if phase == "decode" else f"prefill ({unit})")
        axis.set_ylabel("cost (chip-ms/token)")
        cached = (
            f"{row.input_len} cached, {row.output_len} generated" if phase == "decode" else f"{row.input_len} tokens"
        )
        axis.set_title(f"{phase}\n{cached}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    caption = (
        f"Cost against latency on {hw}{runtime and f' with {runtime}'}, predicted: dots are all chip counts, batches "
        "and layouts, lines are Pareto frontiers."
    )
    if any(relative_interval(row) for mine in chosen.values() for row in mine):
        caption += f" {SAID}"
    return Drawn(file_name("pareto", hw, *filter(None, [runtime])), caption, figure)


def _workload(rows: Sequence[Row]) -> list[Row]:
    """The rows of the pair of lengths nearest to the paper's context, the one with the most rows among equals."""
    counts = Counter((row.input_len, row.output_len) for row in rows if row.input_len + row.output_len > 1)
    if not counts:
        return []
    lengths = min(counts, key=lambda pair: (abs(sum(pair) - CONTEXT), -counts[pair], pair))
    return [row for row in rows if (row.input_len, row.output_len) == lengths]


def _size(model: str, rows: Sequence[Row]) -> float:
    """Orders models by size, for which the least cost of a token stands."""
    return min(row.cost_chip_s_per_token or 0 for row in rows if row.model == model)
