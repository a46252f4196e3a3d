"""Search for the best plan of a workload, and how much worse the others are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from bench.planner.padded import with_padding
from bench.planner.workload import Ways, Workload, ways_of
from engines.analytic.grid import Bools, Floats, Grid
from engines.analytic.predict import PredictedPhase, Prediction, predict, run_phase
from engines.analytic.resolved import resolved
from engines.analytic.strategies import ON_NODES, ON_TORUS, STRATEGIES, Strategy
from engines.core.layout import ATTN_SHARDINGS
from engines.core.point import Point

TERMS: Final = ("compute_s", "memory_s", "communication_s", "overhead_s")
DIMENSIONS: Final = ("num_chips", "mesh", "weight_dtype", "batch_size", "micro_batches")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One plan for the workload with its predicted figures. ``loss`` is the fraction by which the objective is worse.

    ``latency_low_s`` and ``latency_high_s`` are the 80% interval of its time, ``loss_interval`` that of the loss, and
    ``told_apart`` says whether that is all above 0; see :mod:`bench.planner.apart`.

    ``binding_term`` takes the most time. ``worse_term`` is the one that grew most against the chosen plan, in units
    of the objective; None for the chosen plan itself.
    """

    point: Point
    sequences: int
    """Those asked for: fewer than the point's, where its batch is padded."""
    choices: Mapping[str, Mapping[str, Any]]
    """phase → the keys with which it runs: ffn_layout, attn_sharding, and those of latents, experts and groups."""
    strategies: Mapping[str, Strategy]
    """phase → what it runs, as the closed forms name it."""
    latency_s: float
    ttft_s: float | None
    step_time_s: float | None
    cost_chip_s_per_token: float
    tokens_per_s: float
    terms: Mapping[str, float]
    overlapped_s: float
    peak_hbm_bytes: float
    value: float
    fits: bool
    latency_low_s: float | None = None
    latency_high_s: float | None = None
    loss: float = 0.0
    loss_interval: tuple[float, float] | None = None
    told_apart: bool | None = None
    worse_term: str | None = None

    @property
    def layouts(self) -> Mapping[str, tuple[str, str]]:
        """phase → (ffn_layout, attn_sharding)."""
        return {phase: (each.layout, each.attention) for phase, each in self.strategies.items()}

    @property
    def binding_term(self) -> str:
        """The largest of compute, memory, communication and overhead."""
        return max(self.terms, key=lambda name: self.terms[name])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        point = self.point
        cut: dict[str, Any] = {"mesh_shape": list(point.mesh)}
        if point.chip.kind == "gpu":
            cut = {"tensor_parallel": point.tensor_degree, "pipeline_parallel": point.pipeline_degree}
        if point.pipeline_degree > 1:
            cut["micro_batches"] = point.micro_batches
        return {
            "num_chips": point.num_chips,
            **cut,
            "weight_dtype": point.weight_dtype,
            "sequences": self.sequences,
            "batch_size": point.batch_size,
            "layouts": {
                phase: {"ffn_layout": layout, "attn_sharding": attention, **self.choices[phase]}
                for phase, (layout, attention) in self.layouts.items()
            },
            "latency_s": self.latency_s,
            "latency_low_s": self.latency_low_s,
            "latency_high_s": self.latency_high_s,
            "ttft_s": self.ttft_s,
            "step_time_s": self.step_time_s,
            "cost_chip_s_per_token": self.cost_chip_s_per_token,
            "tokens_per_s": self.tokens_per_s,
            "peak_hbm_bytes": self.peak_hbm_bytes,
            **self.terms,
            "overlapped_s": self.overlapped_s,
            "binding_term": self.binding_term,
            "loss": self.loss,
            "loss_interval": None if self.loss_interval is None else list(self.loss_interval),
            "told_apart": self.told_apart,
            "worse_term": self.worse_term,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Predictions of all plans of a workload. ``chosen`` is None where none meets memory and limits."""

    workload: Workload
    chosen: Candidate | None
    runners_up: Sequence[Candidate] = field(default_factory=tuple)
    closest: Candidate | None = None
    """Without a chosen plan: the one that comes closest."""
    memory_fits: bool = True
    """Whether any plan fits in memory, so that only time limits are missed."""


def search(workload: Workload, runners: int = 8) -> SearchResult:
    """Predict all plans at once and rank them by the objective.

    Runners-up are the best way with another chip count, mesh, dtype or batch size, and the chosen way with each other
    layout, the least loss first.

    Raises:
        InvalidRequest: no such chip count exists.
        Unsupported: the chip has no datasheet.
    """
    ways = with_padding(ways_of(workload))
    prediction = predict(ways.grid)
    value = objective(workload, ways, prediction)
    fits = fitting(workload, prediction)
    meets = fits & within_limits(workload, ways.grid, prediction)
    if not meets.any():
        return SearchResult(
            workload=workload,
            chosen=None,
            closest=_closest(workload, ways, prediction, fits),
            memory_fits=bool(fits.any()),
        )
    ranked = np.where(meets, value, np.inf)
    best = int(np.argmin(ranked))
    chosen = plan_at(workload, ways, prediction, best)
    others = _other_configurations(workload, ways, prediction, ranked, best)
    others += _other_layouts(workload, ways, chosen, best)
    # With everything gathered attention has the whole batch to itself, whatever it is called, and so on: one way.
    twin = (chosen.value, chosen.peak_hbm_bytes)
    compared = [_against(chosen, plan) for plan in others if (plan.value, plan.peak_hbm_bytes) != twin]
    compared.sort(key=lambda plan: plan.loss)
    return SearchResult(workload=workload, chosen=chosen, runners_up=compared[:runners])


def objective(workload: Workload, ways: Ways, prediction: Prediction) -> Floats:
    """The objective to minimise: seconds, chip-seconds a token, or seconds a token (inverse throughput)."""
    latency = prediction.cost.latency_s
    if workload.objective == "latency":
        return latency
    per_token = latency / ways.tokens(workload)
    return per_token * ways.grid.chips if workload.objective == "cost" else per_token


def fitting(workload: Workload, prediction: Prediction) -> Bools:
    """Which plans fit in a chip's memory and under the requested limit."""
    whole = prediction.combined()
    fits = whole.possible & prediction.prefill.memory.fits & prediction.decode.memory.fits
    if workload.hbm_limit_bytes is not None:
        fits = fits & (whole.memory.peak_hbm_bytes <= workload.hbm_limit_bytes)
    return fits


def within_limits(workload: Workload, grid: Grid, prediction: Prediction) -> Bools:
    """Which plans meet the time limits."""
    meets = np.ones(len(grid), dtype=bool)
    if workload.latency_limit_s is not None:
        meets = meets & (prediction.cost.latency_s <= workload.latency_limit_s)
    if workload.step_limit_s is not None:
        steps = np.maximum(grid.steps, 1)
        meets = meets & (prediction.decode.cost.latency_s / steps <= workload.step_limit_s)
    return meets


def plan_at(workload: Workload, ways: Ways, prediction: Prediction, position: int) -> Candidate:
    """One entry of the grid as a plan."""
    point = ways.point(position)
    cost = prediction.cost
    latency = _at(cost.latency_s, position)
    phases = {name: getattr(prediction, name) for name in ("prefill", "decode") if workload.phase in (name, "generate")}
    row = ways.grid.take(slice(position, position + 1))
    strategies = {name: phase.strategy[position : position + 1] for name, phase in phases.items()}
    prefill, decode = (_at(phase.cost.latency_s, position) for phase in (prediction.prefill, prediction.decode))
    tokens = _at(ways.tokens(workload), position)
    return Candidate(
        point=point,
        sequences=int(ways.sequences[position]),
        choices={name: resolved([point], row, name, index)[0] for name, index in strategies.items()},
        strategies={name: STRATEGIES[int(index[0])] for name, index in strategies.items()},
        latency_s=latency,
        ttft_s=None if workload.phase == "decode" else prefill,
        step_time_s=decode / point.decode_steps if point.decode_steps else None,
        cost_chip_s_per_token=point.num_chips * latency / tokens,
        tokens_per_s=tokens / latency,
        terms={name: _at(getattr(cost, name), position) for name in TERMS},
        overlapped_s=_at(cost.overlapped_s, position),
        peak_hbm_bytes=_at(prediction.combined().memory.peak_hbm_bytes, position),
        value=_at(objective(workload, ways, prediction), position),
        fits=bool(fitting(workload, prediction)[position]),
    )


def _at(array: Any, position: int) -> float:
    return float(array[position] if np.size(array) > 1 else np.ravel(array)[0])


def _against(chosen: Candidate, plan: Candidate) -> Candidate:
    """``plan`` with its loss against ``chosen`` and the term that causes most of it."""
    scale = plan.value / plan.latency_s
    grown = {name: plan.terms[name] * scale - chosen.terms[name] * chosen.value / chosen.latency_s for name in TERMS}
    return replace(plan, loss=plan.value / chosen.value - 1, worse_term=max(grown, key=lambda name: grown[name]))


def _dimension(point: Point, name: str) -> Any:
    if name == "mesh":
        return (point.num_chips, point.mesh_shape, point.tensor_parallel)
    return getattr(point, name)


def _other_configurations(
    workload: Workload, ways: Ways, prediction: Prediction, ranked: Floats, best: int
) -> list[Candidate]:
    """For each dimension, the best plan for every other value of it (for meshes: of the same number of chips).

    Other micro-batches are those of the same stages.
    """
    points = [ways.points[int(index)] for index in ways.index]
    picked: set[int] = set()
    for name in DIMENSIONS:
        own = int(ways.sequences[best]) if name == "batch_size" else _dimension(points[best], name)
        least: dict[Any, int] = {}
        for position in np.argsort(ranked, kind="stable"):
            if not np.isfinite(ranked[position]):
                break
            point = points[position]
            if name == "mesh" and point.num_chips != points[best].num_chips:
                continue
            if name == "micro_batches" and _dimension(point, "mesh") != _dimension(points[best], "mesh"):
                continue
            value = int(ways.sequences[position]) if name == "batch_size" else _dimension(point, name)
            if value != own:
                least.setdefault(value, int(position))
        picked |= set(list(least.values())[:3])
    return [plan_at(workload, ways, prediction, position) for position in sorted(picked)]


def _other_layouts(workload: Workload, ways: Ways, chosen: Candidate, best: int) -> list[Candidate]:
    """The chosen plan with another strategy in one phase, or other places of the weights in all, where it fits."""
    if chosen.point.num_chips == 1:
        return []
    row = ways.grid.take(slice(best, best + 1))
    one = Ways(ways.points, row, ways.index[best : best + 1], ways.sequences[best : best + 1])
    own = next(iter(chosen.strategies.values()))
    possible = ON_NODES if workload.chip.kind == "gpu" else ON_TORUS
    asked = [
        {**chosen.strategies, phase: other}
        for phase, mine in chosen.strategies.items()
        for other in possible
        if other != mine and other.stored == mine.stored
    ]
    for places in dict.fromkeys(each.places for each in possible if each.places != own.places):
        asked.append({phase: mine._replace(**dict(places)) for phase, mine in chosen.strategies.items()})
    plans = []
    for strategies in asked:
        prediction = _with(row, strategies)
        if bool(fitting(workload, prediction)[0]):
            plans.append(plan_at(workload, one, prediction, 0))
    return plans


def _with(grid: Grid, strategies: Mapping[str, Strategy]) -> Prediction:
    """The prediction of one entry with a strategy for each phase."""
    found: dict[str, PredictedPhase] = {}
    for phase in ("prefill", "decode"):
        strategy = strategies.get(phase, next(iter(strategies.values())))
        asked = "sequence" if strategy.attention == "sequence" else "auto"
        attention = np.full(1, ATTN_SHARDINGS.index(asked))
        found[phase] = run_phase(replace(grid, attention=attention), phase, STRATEGIES.index(strategy))
    return Prediction(prefill=found["prefill"], decode=found["decode"])


def _closest(workload: Workload, ways: Ways, prediction: Prediction, fits: Bools) -> Candidate:
    """The plan that comes closest: the fastest that fits, else the one that needs the least memory on a chip."""
    if fits.any():
        slow = prediction.decode.cost.latency_s if workload.latency_limit_s is None else prediction.cost.latency_s
        return plan_at(workload, ways, prediction, int(np.argmin(np.where(fits, slow, np.inf))))
    needed = prediction.combined().memory.peak_hbm_bytes
    return plan_at(workload, ways, prediction, int(np.argmin(np.broadcast_to(needed, (len(ways.grid),)))))
