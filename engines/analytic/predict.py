"""From a grid of points to times and memory, each open layout chosen: the fastest that fits."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from engines.analytic import memory, nodes, torus
from engines.analytic.cost import Cost
from engines.analytic.grid import Bools, Floats, Grid, Ints
from engines.analytic.memory import Memory
from engines.layout import ATTN_SHARDINGS, FFN_LAYOUTS
from engines.point import PHASES

STRATEGIES: Final = tuple(
    (layout, attention) for layout in FFN_LAYOUTS if layout != "auto" for attention in ("batch", "heads")
)
"""(ffn_layout, attn_sharding) in the order in which ties are broken."""
BLOCK: Final = 16384
"""Points evaluated at once: their temporaries stay in the cache, whatever the grid's size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase of every point: what it costs and takes, and the strategy (an index of STRATEGIES) that it runs."""

    cost: Cost
    memory: Memory
    strategy: Ints
    possible: Bools
    """Whether any asked-for layout exists for the point."""

    @property
    def layout(self) -> Ints:
        """Index of FFN_LAYOUTS."""
        return np.asarray([FFN_LAYOUTS.index(layout) for layout, _ in STRATEGIES])[self.strategy]

    @property
    def attention(self) -> Ints:
        """Index of ATTN_SHARDINGS."""
        return np.asarray([ATTN_SHARDINGS.index(attention) for _, attention in STRATEGIES])[self.strategy]

    def better(self, other: Self) -> Bools:
        """Where this is to be preferred: possible before impossible, fitting before not, then the faster or smaller."""
        fits, others = self.possible & self.memory.fits, other.possible & other.memory.fits
        faster = self.cost.latency_s < other.cost.latency_s
        smaller = self.memory.peak_hbm_bytes < other.memory.peak_hbm_bytes
        both = np.where(fits, faster, smaller)
        return np.where(self.possible != other.possible, self.possible, np.where(fits != others, fits, both))

    def where(self, chosen: Bools, other: Self) -> Self:
        """This where ``chosen``, ``other`` elsewhere."""
        return type(self)(
            cost=self.cost.where(chosen, other.cost),
            memory=self.memory.where(chosen, other.memory),
            strategy=np.where(chosen, self.strategy, other.strategy),
            possible=np.where(chosen, self.possible, other.possible),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Prefill and decode of every point; a phase that a point lacks costs nothing."""

    prefill: Phase
    decode: Phase

    @property
    def cost(self) -> Cost:
        """Both phases together."""
        return self.prefill.cost + self.decode.cost


def blocks(grid: Grid) -> Iterator[tuple[slice, Prediction]]:
    """The predictions of a large grid, a block at a time with its place, so that memory stays bounded."""
    size = len(grid)
    for start in range(0, size, BLOCK):
        place = slice(start, min(start + BLOCK, size))
        yield place, predict(grid.take(place))


def predict(grid: Grid) -> Prediction:
    """Times and memory of every point, arrays [points] throughout.

    A generate point runs both phases. Each takes its own layout where that is left open, ws_1d only if both do: ws_2d
    and the gathered layouts keep the weights in the same place, ws_1d does not.
    """
    prefilled = grid.phase != PHASES.index("decode")
    decoded = grid.phase != PHASES.index("prefill")
    context = grid.input_len + (grid.steps + 1) / 2
    one = np.ones(1)
    if np.all(grid.gpu):
        return Prediction(
            prefill=_on_nodes(grid, prefilled, length=grid.input_len, context=grid.input_len, count=one),
            decode=_on_nodes(grid, decoded, length=one, context=context, count=grid.steps),
        )
    if np.any(grid.gpu):
        raise ValueError("a grid holds GPUs or TPUs, not both")
    stationary = [index for index, (layout, _) in enumerate(STRATEGIES) if layout == "ws_1d"]
    movable = [index for index, (layout, _) in enumerate(STRATEGIES) if layout != "ws_1d"]
    pairs = [
        Prediction(
            prefill=_on_torus(grid, allowed, prefilled, length=grid.input_len, context=grid.input_len, count=one),
            decode=_on_torus(grid, allowed, decoded, length=one, context=context, count=grid.steps),
        )
        for allowed in (movable, stationary)
    ]
    first, second = (_together(pair) for pair in pairs)
    chosen = ~second.better(first)
    return Prediction(
        prefill=pairs[0].prefill.where(chosen, pairs[1].prefill),
        decode=pairs[0].decode.where(chosen, pairs[1].decode),
    )


def _together(pair: Prediction) -> Phase:
    """Both phases as one, to compare pairs of layouts: the time of both, the memory of the larger."""
    larger = pair.prefill.memory.peak_hbm_bytes >= pair.decode.memory.peak_hbm_bytes
    return Phase(
        cost=pair.cost,
        memory=pair.prefill.memory.where(larger, pair.decode.memory),
        strategy=pair.decode.strategy,
        possible=pair.prefill.possible & pair.decode.possible,
    )


def _on_nodes(grid: Grid, runs: Bools, *, length: Floats, context: Floats, count: Floats) -> Phase:
    taken = memory.on_nodes(grid)
    one_d = STRATEGIES.index(("ws_1d", "heads"))
    return Phase(
        cost=nodes.forward(grid, length, context).times(np.where(runs, count, 0.0)),
        memory=taken,
        strategy=np.full(len(grid), one_d),
        possible=np.ones(len(grid), dtype=bool),
    )


def _on_torus(grid: Grid, allowed: list[int], runs: Bools, *, length: Floats, context: Floats, count: Floats) -> Phase:
    best: Phase | None = None
    for index in allowed:
        layout, attention = STRATEGIES[index]
        asked = np.isin(grid.layout, (FFN_LAYOUTS.index("auto"), FFN_LAYOUTS.index(layout)))
        asked = asked & np.isin(grid.attention, (ATTN_SHARDINGS.index("auto"), ATTN_SHARDINGS.index(attention)))
        possible = asked & torus.attention_shards(grid, layout, attention).possible
        phase = Phase(
            cost=torus.forward(grid, layout, attention, length, context).times(np.where(runs, count, 0.0)),
            memory=memory.on_torus(grid, layout, attention),
            strategy=np.full(len(grid), index),
            possible=np.broadcast_to(possible | ~runs, (len(grid),)),
        )
        best = phase if best is None else phase.where(phase.better(best), best)
    if best is None:
        raise ValueError("no layout is allowed")
    return best
