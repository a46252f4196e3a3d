"""Measured rows: step time over batch, MFU over chips."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from bench.report.render.style import COLOURS, Drawn, legend, line_style, panels, plain_log_ticks
from bench.rows.counted import counted
from bench.rows.labels import answered, by_source, layout_label
from bench.rows.methods import method_label
from engines.core.row import Row

FAMILY: Final = (
    "model",
    "hw",
    "engine",
    "input_len",
    "output_len",
    "weight_dtype",
    "act_dtype",
    "weight_group_size",
    "head_dtype",
    "collectives",
    "partitioner",
)
"""Keys that the rows of one figure share, beside their method."""
MOST_PANELS: Final = 4


def step_time_over_batch(rows: Sequence[Row]) -> Drawn | None:
    """One panel a chip count, one line a layout, bars for the confidence intervals.

    None without measured steps, and where they differ neither in batch nor in layout nor in chips.
    """
    steps = [row for row in by_source(rows, "measured") if row.step_time_s is not None and row.status == "ok"]
    decode = [row for row in steps if row.phase == "decode"]
    family = _largest_family(decode or steps)
    if not family:
        return None
    counts = Counter(row.num_chips for row in family)
    several = [count for count in counts if len({row.batch_size for row in family if row.num_chips == count}) > 1]
    counts = Counter({count: counts[count] for count in several or counts})
    chips = sorted(sorted(counts, key=lambda each: (-counts[each], each))[:MOST_PANELS])
    family = [row for row in family if row.num_chips in chips]
    batches = sorted({row.batch_size for row in family})
    colours = _layout_colours(family)
    if len(batches) == len(colours) == len(chips) == 1:
        return None
    figure, axes = panels(len(chips), width=3.6 if len(chips) > 1 else 6.5, height=4.0, share_y=True)
    for axis, count in zip(axes, chips, strict=True):
        for layout, colour in colours.items():
            mine = sorted(
                (row for row in family if row.num_chips == count and _layout(row) == layout), key=lambda r: r.batch_size
            )
            _draw_steps(axis, [row for row in mine if row.valid], colour)
            invalid = [row for row in mine if not row.valid]
            axis.plot(
                [row.batch_size for row in invalid],
                [1e3 * (row.step_time_s or 0) for row in invalid],
                linestyle="",
                marker="x",
                color=colour,
            )
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        plain_log_ticks(axis.xaxis, batches)
        plain_log_ticks(axis.yaxis)
        axis.set_xlabel("batch")
        axis.set_title(counted(count, "chip"))
    axes[0].set_ylabel("decode step (ms)")
    legend(figure, list(colours.items()), ["measured"])
    row = family[0]
    invalid_count = sum(not row.valid for row in family)
    caption = (
        f"Measured decode step of {row.model} on {row.hw} by {row.engine}, {row.input_len} tokens cached, "
        f"{row.weight_dtype}{_method(row)}; bars are {row.ci_level or 0:.0%} confidence intervals of the median"
        + (f"; crosses are rows that are not valid ({invalid_count})." if invalid_count else ".")
    )
    return Drawn("measured_step_time", caption, figure)


def mfu_over_chips(rows: Sequence[Row]) -> Drawn | None:
    """One panel a phase, one line a layout, at the batch with the most chip counts; None with one chip count only."""
    measured = [row for row in by_source(rows, "measured") if answered(row) and row.mfu is not None]
    chosen = {}
    for phase in ("prefill", "decode", "generate"):
        family = _largest_family([row for row in measured if row.phase == phase])
        per_batch = {
            batch: {r.num_chips for r in family if r.batch_size == batch} for batch in {r.batch_size for r in family}
        }
        if per_batch:
            batch = max(per_batch, key=lambda each: (len(per_batch[each]), each))
            if len(per_batch[batch]) > 1:
                chosen[phase] = [row for row in family if row.batch_size == batch]
    if not chosen:
        return None
    figure, axes = panels(len(chosen), width=4.2 if len(chosen) > 1 else 6.5, height=4.0)
    colours = _layout_colours([row for family in chosen.values() for row in family])
    for axis, (phase, family) in zip(axes, chosen.items(), strict=True):
        for layout, colour in colours.items():
            mine = sorted((row for row in family if _layout(row) == layout), key=lambda row: row.num_chips)
            axis.plot(
                [row.num_chips for row in mine],
                [100 * (row.mfu or 0) for row in mine],
                **line_style("measured", colour),
            )
        axis.set_xscale("log", base=2)
        plain_log_ticks(axis.xaxis, sorted({row.num_chips for row in family}))
        axis.set_ylim(0, 105 * max(row.mfu or 0 for row in family))
        axis.set_xlabel("chips")
        axis.set_title(f"{phase}, batch {family[0].batch_size}")
    axes[0].set_ylabel("MFU (%)")
    legend(figure, list(colours.items()), ["measured"])
    row = next(iter(chosen.values()))[0]
    caption = (
        f"Measured MFU of {row.model} on {row.hw} by {row.engine}{_method(row)}; its peak: "
        f"{row.peak_source or 'datasheet'}."
    )
    return Drawn("measured_mfu_over_chips", caption, figure)


def _draw_steps(axis: Any, rows: Sequence[Row], colour: str) -> None:
    """A line of step times with the relative interval of the whole phase."""
    middle = [1e3 * (row.step_time_s or 0) for row in rows]
    below, above = [], []
    for row, step_ms in zip(rows, middle, strict=True):
        known = row.median and row.ci_low is not None and row.ci_high is not None
        below.append(step_ms * (1 - (row.ci_low or 0) / row.median) if known and row.median else 0.0)
        above.append(step_ms * ((row.ci_high or 0) / row.median - 1) if known and row.median else 0.0)
    if rows:
        axis.errorbar(
            [row.batch_size for row in rows], middle, yerr=[below, above], capsize=3, **line_style("measured", colour)
        )


def _largest_family(rows: Sequence[Row]) -> list[Row]:
    counts = Counter(_family(row) for row in rows)
    if not counts:
        return []
    largest = max(counts, key=lambda family: (counts[family], str(family)))
    return [row for row in rows if _family(row) == largest]


def _family(row: Row) -> tuple[Any, ...]:
    return (*(getattr(row, key) for key in FAMILY), method_label(row))


def _method(row: Row) -> str:
    return f", {method_label(row)}" if method_label(row) else ""


def _layout(row: Row) -> str:
    return layout_label(row) or "one chip"


def _layout_colours(rows: Sequence[Row]) -> dict[str, str]:
    layouts = sorted({_layout(row) for row in rows})
    return {layout: COLOURS[place % len(COLOURS)] for place, layout in enumerate(layouts)}
