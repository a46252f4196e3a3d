"""Times and memory of a grid of points; ``auto`` layouts resolve to the fastest that fits."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Self

import numpy as np

from engines.analytic import exits, gpu_nodes, memory, offload, torus_attention, torus_experts, tpu_torus
from engines.analytic.attention import seen_in_decode, seen_in_prefill
from engines.analytic.cost import Cost
from engines.analytic.gpu_ranks import Ranks
from engines.analytic.grid import Bools, Grid, Ints
from engines.analytic.memory import Memory, TorusMemory
from engines.analytic.strategies import GPU_STRATEGIES, INTERCHANGEABLE, ONE_D, STRATEGIES, Strategy
from engines.core.layout import ATTN_SHARDINGS, EXPERT_AXES, FFN_LAYOUTS
from engines.core.point_keys import PHASES

SEQUENCE: Final = ATTN_SHARDINGS.index("sequence")
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
        return np.asarray([FFN_LAYOUTS.index(each.layout) for each in STRATEGIES])[self.strategy]

    @property
    def attention(self) -> Ints:
        """Index of ATTN_SHARDINGS; of a model with latent attention, ``heads`` stands for ``replicated``."""
        return np.asarray([ATTN_SHARDINGS.index(each.attention) for each in STRATEGIES])[self.strategy]

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
        groups = tuple([index] for index in _of_nodes(grid))
    elif np.any(grid.gpu):
        raise ValueError("a grid holds GPUs or TPUs, not both")
    else:
        groups = _of_torus(grid)
    best, known = None, Parts()
    for allowed in groups:
        prefill, decode = (_best(grid, name, allowed, known) for name in ("prefill", "decode"))
        found = Prediction(prefill=prefill, decode=decode)
        best = found if best is None else found.where(found.combined().better(best.combined()), best)
    assert best is not None
    return best


def _of_torus(grid: Grid) -> tuple[list[int], ...]:
    """Strategies that some point may run, those on the same stored weights together; at least one.

    Attention over positions is run where it is asked for: where heads or the batch split it, they send less. Experts
    are split where there are some, over axes of several chips that split them and leave whole columns.
    """
    found = []
    over_positions = np.any(grid.attention == SEQUENCE)
    for allowed in INTERCHANGEABLE:
        kept = [
            index
            for index in allowed
            if (over_positions or STRATEGIES[index].attention != "sequence")
            and (not STRATEGIES[index].experts or np.any(_experts_asked(grid, STRATEGIES[index])))
        ]
        if kept:
            found.append(kept)
    return tuple(found)


def _of_nodes(grid: Grid) -> tuple[int, ...]:
    """Strategies that some point of GPUs may run; at least the first."""
    some = (index for index in GPU_STRATEGIES[1:] if np.any(_ranks_possible(grid, STRATEGIES[index])))
    return (ONE_D, *some)


def _experts_asked(grid: Grid, strategy: Strategy) -> Bools:
    """Where a torus's experts may be split as the strategy does."""
    asked = grid.expert_axes == EXPERT_AXES.index(strategy.experts or "none")
    left_open = (grid.expert_axes == EXPERT_AXES.index("auto")) & torus_experts.several(grid, strategy.experts)
    return np.asarray((asked | left_open) & torus_experts.experts_possible(grid, strategy.experts))


def ranks_of(grid: Grid, strategy: Strategy) -> Ranks:
    """The degrees of GPUs: those asked for, else the strategy's, whose ``spread`` is over as many as divide experts."""
    every = np.gcd(grid.tensor.astype(np.int64), np.maximum(grid.num_experts, 1).astype(np.int64)).astype(float)
    open_experts = every if strategy.spread else np.ones(1)
    return Ranks(
        data=np.where(grid.data > 0, grid.data, float(strategy.data)),
        experts=np.where(grid.expert_ranks > 0, grid.expert_ranks, open_experts),
    )


def _ranks_possible(grid: Grid, strategy: Strategy) -> Bools:
    """Where GPUs may run the strategy.

    Of what a point states, only the first strategy answers. A dense model's attention by heads is data-parallel where
    that is asked for; experts, and latent vectors that no heads split, leave it open.
    """
    ranks = ranks_of(grid, strategy)
    fits = ranks.possible(grid)
    stated = (strategy.data == 1) | ((grid.data == 0) & (grid.latent | (grid.num_experts > 0)))
    spread = (not strategy.spread) | ((grid.expert_ranks == 0) & (grid.num_experts > 0) & (ranks.experts > 1))
    return np.asarray(fits & stated & spread)


def comes_from_host(grid: Grid) -> bool:
    """Whether some point of the grid has weights or a cache outside its chips."""
    return bool(np.any(grid.offloads | grid.offloads_kv))


@dataclass(slots=True)
class Parts:
    """What strategies of a torus have in common, each computed once: all but experts does not depend on their axes."""

    attended: dict[tuple[str, str, str], tuple[tpu_torus.Attended, TorusMemory]] = field(default_factory=dict)
    routed: dict[tuple[str, str, str], torus_experts.ExpertCost] = field(default_factory=dict)


def run_phase(grid: Grid, name: str, strategy: int, known: Parts | None = None) -> PredictedPhase:
    """The phase ``name`` (prefill or decode) of every point, run with one strategy; 0 where a point does not have it.

    A prefill is one pass of input_len tokens a sequence. A decode is ``passes`` of ``pass_tokens``, each taken at the
    mean of the keys that they see, as every cost is linear in it.
    """
    chosen = STRATEGIES[strategy]
    one = np.ones(1)
    runs = _runs(grid, name)
    if name == "prefill":
        length, seen, keys, count = grid.input_len, seen_in_prefill(grid), grid.input_len, one
        logits = one
    else:
        length, seen, count = grid.pass_tokens, seen_in_decode(grid), grid.passes
        keys, logits = grid.input_len + (grid.steps + 1) / 2, grid.pass_tokens
    read = np.zeros(1) if name == "prefill" else seen  # a prompt is read at once, and reads no cache
    run, skips = exits.passed(grid, name), name == "decode" and np.any(grid.exit_heads)
    if np.all(grid.gpu):
        ranks = ranks_of(grid, chosen)
        cost = gpu_nodes.forward(run, length, seen, name == "prefill", ranks, keys)
        cost = cost + exits.cached_on_nodes(grid, ranks, length) if skips else cost
        taken = memory.on_nodes(grid, length, ranks)
        possible = _ranks_possible(grid, chosen)
        of_layer = offload.nodes_bytes(grid, ranks, length, read) if comes_from_host(grid) else None
    else:
        layout, attention, experts = chosen.layout, chosen.attention, chosen.experts
        known = Parts() if known is None else known
        if (name, layout, attention) not in known.attended:
            known.attended[name, layout, attention] = (
                tpu_torus.attended(run, layout, attention, length, seen, keys, logits),
                memory.on_torus(grid, layout, attention, length),
            )
        routed = None
        if np.any(grid.expert_layers):
            if (name, layout, experts) not in known.routed:
                known.routed[name, layout, experts] = torus_experts.expert_cost(run, layout, experts, length)
            routed = known.routed[name, layout, experts]
        dense, held = known.attended[name, layout, attention]
        cost, taken = tpu_torus.together(run, dense, routed), held.with_experts(routed)
        requested = np.isin(grid.layout, (FFN_LAYOUTS.index("auto"), FFN_LAYOUTS.index(layout)))
        requested = requested & _attention_asked(grid, attention) & _experts_asked(grid, chosen)
        shards = torus_attention.attention_shards(grid, layout, attention)
        cost = cost + exits.cached_on_torus(grid, layout, shards, length) if skips else cost
        possible = requested & shards.possible
        of_layer = offload.torus_bytes(grid, layout, shards, length, read) if comes_from_host(grid) else None
    if name == "prefill":
        cost = replace(cost, overhead_s=cost.overhead_s + grid.request_s)
    passes = np.where(runs, count, 0.0)
    return PredictedPhase(
        cost=cost.times(passes) if of_layer is None else offload.streamed(grid, cost, of_layer, passes),
        memory=taken.masked(runs),
        strategy=np.full(len(grid), strategy),
        possible=np.broadcast_to(possible | ~runs, (len(grid),)),
    )


def _attention_asked(grid: Grid, attention: str) -> Bools:
    """Where attention may be split so; auto never splits positions, and ``replicated`` is over heads."""
    if attention == "sequence":
        return np.asarray(grid.attention == SEQUENCE)
    names = ("auto", "heads", "replicated") if attention == "heads" else ("auto", attention)
    return np.isin(grid.attention, [ATTN_SHARDINGS.index(name) for name in names])


def _runs(grid: Grid, name: str) -> Bools:
    """Which points have the phase ``name``."""
    other = "decode" if name == "prefill" else "prefill"
    return np.asarray(grid.phase != PHASES.index(other))


def _best(grid: Grid, name: str, allowed: list[int], known: Parts) -> PredictedPhase:
    best = run_phase(grid, name, allowed[0], known)
    if not _runs(grid, name).any():
        return best
    for strategy in allowed[1:]:
        phase = run_phase(grid, name, strategy, known)
        best = phase.where(phase.better(best), best)
    return best
