"""Dollars for a million tokens over time, where the command was given prices: what chip-seconds cannot compare."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from bench.report.render.style import COLOURS, Drawn, legend, line_style, panels, plain_log_ticks
from bench.rows.frontier import frontier, time_of
from bench.rows.labels import SOURCES, answered, model_label
from bench.rows.methods import is_plain, method_label
from bench.rows.table import Column, Table
from engines.core.row import Row

MOST_PANELS: Final = 3
Question = tuple[str, str, int, int]
"""Model, phase and lengths: what chips are compared at."""


def dollars_table(rows: Sequence[Row]) -> Table | None:
    """Of each question the cheapest row of every chip, method and kind of evidence; None without prices."""
    found, several = [], not all(map(is_plain, rows))
    for question, mine in _questions(rows).items():
        of: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
        for row in mine:
            of[(row.hw, method_label(row), row.source, row.engine)].append(row)
        cheapest = [min(each, key=lambda row: row.cost_usd_per_mtok or 0) for each in of.values()]
        for row in sorted(cheapest, key=lambda row: row.cost_usd_per_mtok or 0):
            model, phase, input_len, output_len = question
            keys = {"model": model, "phase": phase, "input_len": input_len, "output_len": output_len or None}
            names = ("hw", "num_chips", "batch_size", "weight_dtype", "source", "engine", "latency_s")
            figures = ("step_time_s", "cost_chip_s_per_token", "cost_usd_per_mtok")
            method = {"method": method_label(row)} if several else {}
            found.append({**keys, **method, **{name: getattr(row, name) for name in (*names, *figures)}})
    if not found:
        return None
    return Table(
        name="dollars",
        caption="The cheapest row of every chip, in dollars",
        columns=[Column(name) for name in found[0]],
        rows=found,
        note=f"Dollars are by price={'; '.join(sorted({row.price for row in rows if row.price}))}. "
        "A million tokens are those that pass through the model: input and output.",
    )


def dollars_over_time(rows: Sequence[Row]) -> Drawn | None:
    """A panel a question, those with the most chips first: the Pareto frontier of every chip and kind of evidence."""
    questions = {key: mine for key, mine in _questions(rows).items() if len(_lines(mine)) > 1}
    shown = sorted(questions, key=lambda key: (-len({row.hw for row in questions[key]}), key))[:MOST_PANELS]
    if not shown:
        return None
    chips = sorted({row.hw for key in shown for row in questions[key]})
    colours = {hw: COLOURS[place % len(COLOURS)] for place, hw in enumerate(chips)}
    figure, axes = panels(len(shown), width=4.8, height=4.2)
    kinds = set()
    for axis, key in zip(axes, shown, strict=True):
        model, phase, input_len, output_len = key
        for (hw, source, _), best in _lines(questions[key]).items():
            kinds.add(source)
            x = [1e3 * (time_of(row) or 0) for row in best]
            axis.plot(x, [row.cost_usd_per_mtok or 0 for row in best], **line_style(source, colours[hw]))
        axis.set_xscale("log")
        axis.set_yscale("log")
        plain_log_ticks(axis.xaxis)
        plain_log_ticks(axis.yaxis)
        axis.set_xlabel("decode step (ms)" if phase == "decode" else f"{phase} (ms)")
        axis.set_ylabel("cost (USD/Mtok)")
        axis.set_title(f"{model_label(model)}, {phase}, {input_len} in" + (f", {output_len} out" if output_len else ""))
    ordered = [kind for kind in reversed(SOURCES) if kind in kinds]
    legend(figure, list(colours.items()), ordered)
    caption = (
        "US dollars for a million tokens over time: a line joins the rows of a chip that no other of its own beats in "
        f"both. Kinds of evidence: {', '.join(ordered)}."
    )
    return Drawn("dollars_over_time", caption, figure)


def _questions(rows: Sequence[Row]) -> dict[Question, list[Row]]:
    found: dict[Question, list[Row]] = defaultdict(list)
    for row in rows:
        if answered(row) and row.cost_usd_per_mtok is not None:
            found[(row.model, row.phase, row.input_len, row.output_len)].append(row)
    return dict(sorted(found.items()))


def _lines(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """The frontier of every chip, kind of evidence and engine, of plain rows; of one chip, dollars are as chip-seconds.

    ``report field`` draws methods beside each other.
    """
    found: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in filter(is_plain, rows):
        found[(row.hw, row.source, row.engine)].append(row)
    return {key: frontier(mine) for key, mine in sorted(found.items())}
