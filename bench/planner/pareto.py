"""Cost against latency over chips × batch × layout × dtype, and the Pareto frontier."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np

from bench.planner.search import fitting
from bench.planner.workload import Workload, ways_of
from bench.validate.ratios import ratio_error
from engines.analytic.grid import Bools, Floats
from engines.analytic.predict import predict
from engines.analytic.strategies import STRATEGIES

PANELS: Final = (("decode", "decode step (s)"), ("prefill", "prefill (s)"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One plan for a model: ``latency_s`` is a decode step's or the prefill's; ``mfu`` a fraction.

    ``told_apart`` says whether a plan of the frontier is both faster and cheaper by more than two predictions of one
    stack may be off (:mod:`bench.validate.ratios`); those that are not may be on the frontier themselves.
    """

    model: str
    hw: str
    phase: str
    weight_dtype: str
    num_chips: int
    parallelism: str
    batch_size: int
    ffn_layout: str
    attn_sharding: str
    latency_s: float
    cost_chip_s_per_token: float
    mfu: float
    on_frontier: bool
    told_apart: bool
    cost_usd_per_mtok: float | None = None


def is_frontier(latency: Floats, cost: Floats) -> Bools:
    """Which of the plans [n] are Pareto-optimal in time and cost.

    Sorted by time (then cost), the frontier are those cheaper than all before them.
    """
    order = np.lexsort((cost, latency))
    least_before = np.concatenate([[np.inf], np.minimum.accumulate(cost[order])[:-1]])
    on = np.zeros(len(latency), dtype=bool)
    on[order] = cost[order] < least_before
    return on


def is_beaten(latency: Floats, cost: Floats, on: Bools, factor: float) -> Bools:
    """Which of the plans [n] one of the frontier (``on`` [n]) beats in time and cost by more than ``factor``."""
    beaten = np.zeros(len(latency), dtype=bool)
    for fast, cheap in zip(latency[on], cost[on], strict=True):
        beaten |= (latency > factor * fast) & (cost > factor * cheap)
    return beaten


def spots(workload: Workload) -> list[Spot]:
    """Every plan of a prefill or decode workload that fits in memory, each with its fastest layout.

    The frontier is that of one weight dtype, as in the paper's Figure 1.

    Raises:
        ValueError: a generate workload, which has two times.
    """
    if workload.phase == "generate":
        raise ValueError("a frontier is of one phase")
    ways = ways_of(workload)
    prediction = predict(ways.grid)
    phase = prediction.prefill if workload.phase == "prefill" else prediction.decode
    kept = np.flatnonzero(fitting(workload, prediction))
    total = np.broadcast_to(prediction.cost.latency_s, (len(ways.grid),))
    latency = total / (workload.output_len if workload.phase == "decode" else 1)
    tokens = ways.tokens(workload)
    cost = ways.grid.chips * total / tokens
    mfu = 2 * ways.grid.mfu_params * tokens / total / (ways.grid.chips * ways.grid.peak)
    dtypes = np.asarray([ways.points[int(index)].weight_dtype for index in ways.index])
    on = np.zeros(len(ways.grid), dtype=bool)
    beaten = np.zeros(len(ways.grid), dtype=bool)
    known = ratio_error(workload.chip.kind)
    for dtype in workload.weight_dtypes:
        mine = kept[(dtypes[kept] == dtype) & (mfu[kept] <= 1)]  # above 1, a size of the model is wrong
        on[mine] = is_frontier(latency[mine], cost[mine])
        beaten[mine] = is_beaten(latency[mine], cost[mine], on[mine], 1.0 if known is None else known.factor)
    found = []
    for position in kept:
        point = ways.point(int(position))
        chosen = STRATEGIES[int(phase.strategy[position])]
        layout, attention = chosen.layout, chosen.attention
        cut = f"tp{point.tensor_degree} pp{point.pipeline_degree}" if point.chip.kind == "gpu" else point.mesh
        found.append(
            Spot(
                model=point.model.name,
                hw=point.chip.name,
                phase=point.phase,
                weight_dtype=point.weight_dtype,
                num_chips=point.num_chips,
                parallelism=cut if isinstance(cut, str) else "x".join(map(str, cut)),
                batch_size=point.batch_size,
                ffn_layout=layout if point.num_chips > 1 else "",
                attn_sharding=attention if point.num_chips > 1 else "",
                latency_s=float(latency[position]),
                cost_chip_s_per_token=float(cost[position]),
                mfu=float(mfu[position]),
                on_frontier=bool(on[position]),
                told_apart=bool(beaten[position]),
            )
        )
    return found


def write_csv(path: Path, all_spots: Sequence[Spot]) -> None:
    """One CSV line for each plan."""
    names = [field.name for field in fields(Spot)]
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(names)
        writer.writerows([getattr(spot, name) for name in names] for spot in all_spots)


def draw(all_spots: Sequence[Spot], folder: Path, name: str, factor: float = 1.0) -> list[Path]:
    """Figure 1: decode on the left, prefill on the right, a frontier for each model and dtype, as PNG and PDF.

    Behind each frontier lies the band in which a plan cannot be told apart from it, up to ``factor`` times its time and
    cost.
    """
    from bench.report.render.style import COLOURS, Drawn, cost_axes, panels, save, settings

    shown = [(phase, label) for phase, label in PANELS if any(spot.phase == phase for spot in all_spots)]
    models = list(dict.fromkeys(spot.model for spot in all_spots))
    dtypes = list(dict.fromkeys(spot.weight_dtype for spot in all_spots))
    with settings():
        figure, axes = panels(len(shown), width=5.4, height=4.4)
        for axis, (phase, label) in zip(axes, shown, strict=True):
            for line in _lines(all_spots, phase):
                x, y = [spot.latency_s for spot in line], [1e3 * spot.cost_chip_s_per_token for spot in line]
                colour = COLOURS[models.index(line[0].model) % len(COLOURS)]
                above = ([factor * each for each in reversed(x)], [factor * each for each in reversed(y)])
                axis.fill([*x, *above[0]], [*y, *above[1]], color=colour, alpha=0.12, linewidth=0)
                axis.plot(
                    x,
                    y,
                    color=colour,
                    linestyle=("-", "--", ":", "-.")[dtypes.index(line[0].weight_dtype) % 4],
                    marker="o",
                    markersize=3.5,
                    label=f"{line[0].model}, {line[0].weight_dtype}",
                )
            cost_axes(axis, label, phase)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
        caption = (
            "Predicted cost against latency; the lines join the ways that none beats in both, and what lies in their "
            f"bands, within {factor - 1:.0%}, cannot be told apart from them."
        )
        return save(Drawn(name, caption, figure), folder, ("png", "pdf"))


def _lines(all_spots: Sequence[Spot], phase: str) -> Iterator[list[Spot]]:
    """The frontiers of one panel, each from the fastest to the cheapest."""
    best = [spot for spot in all_spots if spot.phase == phase and spot.on_frontier]
    for key in dict.fromkeys((spot.model, spot.weight_dtype) for spot in best):
        line = [spot for spot in best if (spot.model, spot.weight_dtype) == key]
        yield sorted(line, key=lambda spot: spot.latency_s)
