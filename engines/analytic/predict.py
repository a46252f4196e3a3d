"""Times and memory of a grid of points; ``auto`` layouts resolve to the fastest that fits."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from engines.analytic import gpu_nodes, memory, tpu_torus
from engines.analytic.cost import Cost
from engines.analytic.grid import Bools, Grid, Ints
from engines.analytic.memory import Memory
from engines.core.layout import ATTN_SHARDINGS, FFN_LAYOUTS, LAYOUTS
from engines.core.point import PHASES

STRATEGIES: Final = tuple(
    (layout, attention) for layout in FFN_LAYOUTS if layout != "auto" for attention in ("batch", "heads")
)
"""(ffn_layout, attn_sharding) in the order in which ties are broken."""
ONE_D: Final = STRATEGIES.index(("ws_1d", "heads"))
"""What GPU nodes run."""
INTERCHANGEABLE: Final = tuple(
    [index for index, (layout, _) in enumerate(STRATEGIES) if LAYOUTS[layout].stored == stored]
    for stored in reversed(dict.fromkeys(LAYOUTS[layout].stored for layout, _ in STRATEGIES))
)
"""Indices of the strategies whose layouts run on the same stored weights, those of the last layout first."""
BLOCK: Final = 16384
"""Points evaluated at once, so that temporaries stay in the CPU cache whatever the grid's size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedPhase:
    """One phase of every point: its cost, its memory, and the strategy (an index of STRATEGIES) that it runs."""

    cost: Cost
    memory: Memory
    strategy: Ints
    possible: Bools
    """Whether any requested layout exists for the point."""

    @property
    def layout(self) -> Ints:
        """Index of FFN_LAYOUTS."""
        return np.asarray([FFN_LAYOUTS.index(layout) for layout, _ in STRATEGIES])[self.strategy]

    @property
    def attention(self) -> Ints:
        """Index of ATTN_SHARDINGS."""
        return np.asarray([ATTN_SHARDINGS.index(attention) for _, attention in STRATEGIES])[self.strategy]

    def better(self, other: Self) -> Bools:
        """Where this is preferred: possible before impossible, fitting before not, then the faster or the smaller."""
        fits, others = self.possible & self.memory.fits, other.possible & other.memory.fits
        faster = self.cost.latency_s < other.cost.latency_s
        smaller = self.memory.peak_hbm_bytes < other.memory.peak_hbm_bytes
        both = np.where(fits, faster, smaller)
        return np.where(self.possible != other.possible, self.possible, np.where(fits != others, fits, both))

    def where(self, chosen: Bools, other: Self) -> Self:
        """self where ``chosen``, ``other`` elsewhere."""
        return type(self)(
            cost=self.cost.where(chosen, other.cost),
            memory=self.memory.where(chosen, other.memory),
            strategy=np.where(chosen, self.strategy, other.strategy),
            possible=np.where(chosen, self.possible, other.possible),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Prefill and decode of every point; a phase that a point does not have costs 0."""

    prefill: PredictedPhase
    decode: PredictedPhase

    @property
    def cost(self) -> Cost:
        """Both phases together."""
        return self.prefill.cost + self.decode.cost

    def where(self, chosen: Bools, other: Self) -> Self:
        """This where ``chosen``, ``other`` elsewhere."""
        return type(self)(
            prefill=self.prefill.where(chosen, other.prefill), decode=self.decode.where(chosen, other.decode)
        )

    def combined(self) -> PredictedPhase:
        """Both phases as one: the time of both, the memory of the larger; ``strategy`` is the decode's."""
        larger = self.prefill.memory.peak_hbm_bytes >= self.decode.memory.peak_hbm_bytes
        return PredictedPhase(
            cost=self.cost,
            memory=self.prefill.memory.where(larger, self.decode.memory),
            strategy=self.decode.strategy,
            possible=self.prefill.possible & self.decode.possible,
        )


def blocks(grid: Grid) -> Iterator[tuple[slice, Prediction]]:
    """The predictions of a large grid, a block at a time with its place, so that memory stays bounded.

    As many blocks as there are cores run at once: numpy releases the GIL while it computes.
    """
    places = [slice(start, min(start + BLOCK, len(grid))) for start in range(0, len(grid), BLOCK)]
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(places), workers):
            together = places[first : first + workers]
            yield from zip(together, pool.map(lambda place: predict(grid.take(place)), together), strict=True)


def predict(grid: Grid) -> Prediction:
    """Times and memory of every point, arrays [points] throughout.

    A generate point runs both phases. Each takes its own layout where that is left open, of those that keep the weights
    in the same place.

    Raises:
        ValueError: the grid mixes GPUs and TPUs.
    """
    if np.all(grid.gpu):
        return Prediction(prefill=run_phase(grid, "prefill", ONE_D), decode=run_phase(grid, "decode", ONE_D))
    if np.any(grid.gpu):
        raise ValueError("a grid holds GPUs or TPUs, not both")
    best = None
    for allowed in INTERCHANGEABLE:
        found = Prediction(prefill=_best(grid, "prefill", allowed), decode=_best(grid, "decode", allowed))
        best = found if best is None else found.where(found.combined().better(best.combined()), best)
    assert best is not None
    return best


def run_phase(grid: Grid, name: str, strategy: int) -> PredictedPhase:
    """The phase ``name`` (prefill or decode) of every point, run with one strategy; 0 where a point does not have it.

    A prefill is one pass of input_len tokens a sequence. A decode is ``steps`` passes of one token, each taken at the
    mean context, input_len + (steps + 1)/2, as every cost is linear in it.
    """
    layout, attention = STRATEGIES[strategy]
    one = np.ones(1)
    runs = _runs(grid, name)
    if name == "prefill":
        length, context, count = grid.input_len, grid.input_len, one
    else:
        length, context, count = one, grid.input_len + (grid.steps + 1) / 2, grid.steps
    if np.all(grid.gpu):
        prefill = name == "prefill"
        cost, taken = gpu_nodes.forward(grid, length, context, prefill), memory.on_nodes(grid, length)
        possible = np.ones(len(grid), dtype=bool)
    else:
        cost = tpu_torus.forward(grid, layout, attention, length, context)
        taken = memory.on_torus(grid, layout, attention, length)
        requested = np.isin(grid.layout, (FFN_LAYOUTS.index("auto"), FFN_LAYOUTS.index(layout)))
        requested = requested & np.isin(grid.attention, (ATTN_SHARDINGS.index("auto"), ATTN_SHARDINGS.index(attention)))
        possible = requested & tpu_torus.attention_shards(grid, layout, attention).possible
    if name == "prefill":
        cost = replace(cost, overhead_s=cost.overhead_s + grid.request_s)
    return PredictedPhase(
        cost=cost.times(np.where(runs, count, 0.0)),
        memory=taken.masked(runs),
        strategy=np.full(len(grid), strategy),
        possible=np.broadcast_to(possible | ~runs, (len(grid),)),
    )


def _runs(grid: Grid, name: str) -> Bools:
    """Which points have the phase ``name``."""
    other = "decode" if name == "prefill" else "prefill"
    return np.asarray(grid.phase != PHASES.index(other))


def _best(grid: Grid, name: str, allowed: list[int]) -> PredictedPhase:
    if not _runs(grid, name).any():
        return run_phase(grid, name, allowed[0])
    best = run_phase(grid, name, allowed[0])
    for strategy in allowed[1:]:
        phase = run_phase(grid, name, strategy)
        best = phase.where(phase.better(best), best)
    return best
