"""Cost against latency of PaLM over chips and batch, as in Figure 1 of Pope et al. 2022, of every kind of evidence."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from bench.report.paper.answers import SOURCES
from bench.report.render.style import COLOURS, Drawn, cost_axes, legend, line_style, panels
from bench.rows.frontier import frontier, time_of
from bench.rows.labels import answered, model_label
from engines.core.row import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES: Final = {"decode": ("decode step (ms)", 1e3), "prefill": ("prefill (s)", 1.0)}
NARROW: Final = ("int8",)
"""Weights whose frontier is drawn thinner."""


def cost_over_latency(rows: Sequence[Row], caption: str) -> Drawn:
    """Decode on the left, prefill on the right: lines are Pareto frontiers of predicted rows."""
    figure, axes = panels(len(PHASES), width=5.2, height=4.6)
    drawable = [row for row in rows if _place(row) is not None]
    models = sorted({row.model for row in rows}, key=lambda model: (len(model), model))
    colours = dict(zip(models, COLOURS, strict=False))
    for axis, (phase, (label, scale)) in zip(axes, PHASES.items(), strict=True):
        for model, colour in colours.items():
            mine = [row for row in drawable if row.phase == phase and row.model == model]
            for weight_dtype in sorted({row.weight_dtype for row in mine}):
                best = frontier([row for row in mine if _is(row, "predicted", weight_dtype)])
                style = line_style("predicted", colour) | {"markersize": 3.5}
                _plot(axis, best, scale, style | ({"linewidth": 0.9} if weight_dtype in NARROW else {}))
            for source in ("compiled", "published", "measured"):
                others = [row for row in mine if row.source == source]
                _plot(axis, others, scale, line_style(source, colour) | {"linestyle": "", "markersize": 8.0})
        cost_axes(axis, label, phase)
    kinds = [source for source in SOURCES if any(row.source == source for row in drawable)]
    legend(figure, [(model_label(model), colour) for model, colour in colours.items()], kinds)
    return Drawn("figure1_cost_over_latency", f"{caption} Thin: {', '.join(NARROW)} weights.", figure)


def _plot(axis: "Axes", rows: Sequence[Row], scale: float, style: dict[str, Any]) -> None:
    places = [place for row in rows if (place := _place(row)) is not None]
    axis.plot([scale * seconds for seconds, _ in places], [1e3 * cost for _, cost in places], **style)


def _place(row: Row) -> tuple[float, float] | None:
    """Time and cost; None where one is unknown or no positive number, as a logarithmic axis needs."""
    seconds, cost = time_of(row), row.cost_chip_s_per_token
    if not answered(row) or seconds is None or cost is None:
        return None
    return (seconds, cost) if all(math.isfinite(value) and value > 0 for value in (seconds, cost)) else None


def _is(row: Row, source: str, weight_dtype: str) -> bool:
    return row.source == source and row.weight_dtype == weight_dtype
