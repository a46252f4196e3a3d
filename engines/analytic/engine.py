"""The closed-form engine."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import numpy as np

from engines.analytic.constants import calibrated_name, constants_of, provenance
from engines.analytic.drafts import asked, draft_of
from engines.analytic.exit_record import check_exits, exit_facts
from engines.analytic.grid import collectives_of, record
from engines.analytic.impossible import impossible
from engines.analytic.offload_rates import check_streamed, host_bytes
from engines.analytic.phase_at_point import PhaseAtPoint, oom_message, value_at
from engines.analytic.predict import predict
from engines.analytic.resolved import resolved
from engines.analytic.routing_constants import routing_constants
from engines.analytic.uncertainty import interval, place_of
from engines.core.digest import digest
from engines.core.engine import Estimate, Estimator, Facts
from engines.core.errors import ShardbenchError, Unsupported
from engines.core.extension import check_extensions
from engines.core.point import Point
from engines.core.pruning import TWO_OF_FOUR, as_run
from engines.core.row import Source
from engines.core.runtime import BEST
from engines.core.speculation import tokens_per_turn
from engines.core.speculative_keys import check_rate
from engines.offload.host_link import HOST_LINK_SHARE
from engines.weights.lengths import counted, moments

CLOSED_FORM_VERSION: Final = 3
"""Raised when the closed forms answer differently with the same constants; a test ties it to a table of answers."""
EXTENSIONS: Final = (
    *("activation", "position", "attn_output_bias", "qk_norm", "embedding_norm", "encoder", "norm_position"),
    *("embedding_scale", "residual_scale", "logit_scale", "logit_softcap", "attention_sinks", "attn_scale"),
    *("attn_softcap", "attention_window", "window_kind", "global_every", "q_latent_dim", "kv_latent_dim"),
    *("value_head_dim", "num_experts", "experts_per_token", "expert_d_ff", "shared_expert_d_ff", "shared_expert_gate"),
    *("dense_layers", "router_score", "router_normalized", "router_scale", "router_bias", "router_correction"),
    *("router_groups", "router_groups_kept", "rotary_scaling", "rotary_attention_factor", "rotary_short_factors"),
    *("rotary_long_factors", "rotary_window_base", "attn_sharding", "latent_attention", "expert_axes"),
    *("expert_dispatch", "expert_parallel", "data_parallel", "expert_capacity", "routing_skew", "pruning"),
    *("speculative", "draft_model", "draft_len", "draft_layers", "acceptance_rate"),
    *("exit_threshold", "exit_every", "exit_rate"),
    *("planner", "shardings", "offload", "offload_kv", "lengths", "padding", "sequence_parallel", "micro_batches"),
)
"""Keys of a model or a point that the closed forms read, or that change nothing that they count."""


class AnalyticEngine(Estimator):
    """Closed forms with calibrated constants: latency = compute + memory + communication + overhead − overlapped."""

    name: ClassVar[str] = "analytic"
    source: ClassVar[Source] = "predicted"
    code: ClassVar[Sequence[str]] = ("analytic", "offload")
    runtime: ClassVar[str | None] = BEST
    answers_any_runtime: ClassVar[bool] = True

    def __init__(self, **_settings: Any) -> None:
        """``_settings`` are the harness's; the constants are calibrated, not configured."""

    def program_id(self, point: Point) -> str:
        """The version of the closed forms and the constants that the chip takes.

        Raises:
            Unsupported: a cpu, for which nothing can be predicted.
        """
        return _program_id(point)

    def estimate(self, points: Sequence[Point]) -> list[Estimate]:
        """One estimate per point, in order; points of one kind of chip are computed together as arrays."""
        answers: dict[int, Estimate] = {}
        run = list(points)
        torus: list[int] = []
        nodes: list[int] = []
        for index, point in enumerate(points):
            try:
                run[index] = as_run(point)
                _check(run[index])
            except ShardbenchError as error:
                answers[index] = Estimate(status="unsupported", error=str(error))
                continue
            if point.planner == "alpa" or point.shardings is not None:
                from engines.analytic.alpa.estimate import planned_estimate  # its modules serve few points

                answers[index] = planned_estimate(run[index])
            else:
                (nodes if point.chip.kind == "gpu" else torus).append(index)
        for positions in (torus, nodes):
            if positions:
                chosen = [run[index] for index in positions]
                answers.update(zip(positions, _estimates(chosen), strict=True))
        return [answers[index] for index in range(len(points))]


def _program_id(point: Point) -> str:
    if point.planner == "alpa" or point.shardings is not None:
        from engines.analytic.alpa.estimate import planned_program_id

        return planned_program_id(point)
    parts: list[Any] = [CLOSED_FORM_VERSION, constants_of(point)]
    if point.model.num_experts is not None:
        parts.append(routing_constants(point.chip.kind))
    if point.offloads:
        parts.append({"host_link_share": HOST_LINK_SHARE})
    return digest(*parts)


def _check(point: Point) -> None:
    point.check()
    check_extensions(point, "analytic", read=EXTENSIONS)
    check_rate(point)
    record(point)
    check_streamed(point)
    check_exits(point)
    if point.chip.kind != "gpu" and point.pipeline_degree > 1:
        raise Unsupported(
            f"pipeline_parallel={point.pipeline_degree}: stages are modelled on GPU nodes, and not on the torus of "
            f"hw={point.chip.name}; use engine=compiled, or leave it out"
        )
    draft = draft_of(point)
    if draft is not None:
        _check_draft(point, draft)
    if point.chip.kind == "gpu":
        if point.ffn_layout not in ("auto", "ws_1d") or point.attn_sharding in ("batch", "sequence"):
            raise Unsupported(
                f"ffn_layout={point.ffn_layout} with attn_sharding={point.attn_sharding} is not modelled on GPU nodes; "
                "they run ws_1d with attention over heads (tensor_parallel × pipeline_parallel), or data_parallel; "
                "leave both auto"
            )
        _check_ranks(point)
        size = point.chip.node_size
        if point.tensor_degree > size and point.tensor_degree % size:
            raise Unsupported(
                f"tensor_parallel={point.tensor_degree}: must be a multiple of the {size} GPUs of a node, or fit in "
                f"one; use at most {size}, or a multiple"
            )


def _check_draft(point: Point, draft: Point) -> None:
    try:
        _check(draft)
    except ShardbenchError as error:
        key = "draft_model" if point.speculative == "draft" else "draft_layers"
        value = draft.model.name if point.speculative == "draft" else point.draft_layers
        raise Unsupported(f"{key}={value}: {error}") from error


def _check_ranks(point: Point) -> None:
    """Check that data_parallel and expert_parallel split the ranks of a stage."""
    ranks, model = point.tensor_degree, point.model
    for key in ("data_parallel", "expert_parallel"):
        degree = getattr(point, key)
        if degree is not None and ranks % degree:
            raise Unsupported(
                f"{key}={degree}: must divide the tensor_parallel={ranks} ranks of a stage; use a divisor"
            )
    groups = point.data_parallel or 1
    if groups > point.batch_size:
        raise Unsupported(
            f"data_parallel={groups}: has no sequence for some groups of batch_size={point.batch_size}; use at most "
            f"{point.batch_size}"
        )
    if groups > 1 and model.num_heads % (ranks // groups):
        raise Unsupported(
            f"data_parallel={groups}: leaves {ranks // groups} ranks for num_heads={model.num_heads}, which they must "
            "divide; use more groups"
        )


def _estimates(points: Sequence[Point]) -> list[Estimate]:
    every = asked(points)
    prediction = predict(every.grid)
    low, high = interval(prediction.cost, np.asarray([place_of(point) for point in every.points]))
    possible = prediction.combined().possible
    phases = {name: getattr(prediction, name) for name in ("prefill", "decode")}
    chosen = {name: resolved(every.points, every.grid, name, phase.strategy) for name, phase in phases.items()}

    def of(index: int) -> list[PhaseAtPoint]:
        return [PhaseAtPoint(phase, index, chosen[name][index], name) for name, phase in phases.items()]

    found = []
    for index, point in enumerate(points):
        places = [index, *([every.draft[index]] if index in every.draft else [])]
        refused = next((place for place in places if not possible[place]), None)
        if refused is not None:
            found.append(Estimate(status="unsupported", error=impossible(every.points[refused])))
            continue
        prefill, decode = of(index)
        ends = value_at(low, index), value_at(high, index)
        if index not in every.turns:
            found.append(_estimate(point, prefill, decode, ends))
            continue
        drafted = of(every.draft[index]) if index in every.draft else None
        found.append(_speculating(point, [prefill, decode], drafted, every.turns[index], ends))
    return found


def _speculating(
    point: Point,
    own: list[PhaseAtPoint],
    drafted: list[PhaseAtPoint] | None,
    turns: float,
    ends: tuple[float, float],
) -> Estimate:
    """The estimate of a point that speculates: the passes that verify, and those that propose."""
    verify_s = own[1].cost["latency_s"] / turns
    details: dict[str, Any] = {"turns": turns, "verify_s": verify_s}
    phases = own
    if drafted is not None:
        details["draft_s"] = drafted[1].cost["latency_s"] / turns
        shared = point.speculative == "self"
        phases = [mine.with_draft(theirs, shared) for mine, theirs in zip(own, drafted, strict=True)]
        if not shared:
            details |= {f"draft_{key}": value for key, value in drafted[1].keys.items()}
    alone, both = (sum(phase.cost["latency_s"] for phase in each) for each in (own, phases))
    prefill, decode = phases
    found = _estimate(point, prefill, decode, (ends[0] * both / alone, ends[1] * both / alone))
    details |= _waiting(point, own)  # a draft's cache stays on the chip
    rate, count = point.acceptance_rate or 0.0, point.draft_len or 0
    facts = replace(
        found.facts,
        tokens_per_turn=tokens_per_turn(rate, count),
        details={**found.facts.details, **details},
    )
    return replace(found, facts=facts)


def _waiting(point: Point, phases: Sequence[PhaseAtPoint]) -> dict[str, float]:
    """What waits on the host stays there in both phases; the cache is at its largest behind the last step."""
    if not point.offloads:
        return {}
    return {"host_bytes": host_bytes(point, max(phase.memory["kv_cache_bytes"] for phase in phases))}


def _estimate(point: Point, prefill: PhaseAtPoint, decode: PhaseAtPoint, ends: tuple[float, float]) -> Estimate:
    phases = {"prefill": [prefill], "decode": [decode], "generate": [prefill, decode]}[point.phase]
    widest = max(phases, key=lambda phase: phase.memory["peak_hbm_bytes"])
    total = {name: math.fsum(phase.cost[name] for phase in phases) for name in prefill.cost}
    keys: dict[str, Any] = {"mesh_shape": list(point.mesh), "collectives": collectives_of(point)}
    keys["runtime"] = BEST if point.runtime is None else point.runtime.name
    details: dict[str, Any] = {"calibration": provenance(calibrated_name(point.chip))}
    if point.chip.kind == "gpu":
        keys |= {"tensor_parallel": point.tensor_degree, "pipeline_parallel": point.pipeline_degree}
        keys["mesh_shape"] = [1, 1, point.num_chips]
    keys |= phases[-1].keys
    details |= _waiting(point, phases)
    if point.phase == "generate":
        always = ("ffn_layout", "attn_sharding")
        other = {key for key, value in prefill.keys.items() if key in always or decode.keys.get(key) != value}
        details |= {f"prefill_{key}": prefill.keys[key] for key in prefill.keys if key in other}
    real = round(point.batch_size * moments(point.lengths, point.input_len).mean)
    if point.lengths != "equal":
        details |= {"real_tokens": real, "padded_tokens": point.batch_size * point.input_len}
    if point.pruning == TWO_OF_FOUR:
        details["two_of_four"] = (
            "sparse tensor cores: half of the bytes, 2 bits more for each weight that stays, and twice the dense peak"
            if point.is_sparse
            else f"zeros are read and multiplied like other weights: hw={point.chip.name} has no sparse tensor cores"
        )
    mean_layers, of_exits = exit_facts(point)
    facts = Facts(
        program_id=_program_id(point),
        mean_layers=mean_layers,
        resolved=keys,
        processed_tokens=counted(point, real),
        cached_tokens=real,
        compute_s=total["compute_s"],
        memory_s=total["memory_s"],
        communication_s=total["communication_s"],
        overlapped_s=total["overlapped_s"],
        overhead_s=total["overhead_s"],
        peak_hbm_bytes=widest.memory["peak_hbm_bytes"],
        weights_bytes=widest.memory["weights_bytes"],
        kv_cache_bytes=widest.memory["kv_cache_bytes"],
        activations_bytes=widest.memory["activations_bytes"],
        details=details | of_exits,
    )
    missing = widest.memory["peak_hbm_bytes"] - widest.memory["usable_bytes"]
    if missing > 0:
        return Estimate(status="oom", error=oom_message(point, widest, missing), facts=facts)
    latency = total["latency_s"]
    return Estimate(
        latency_s=latency,
        latency_low_s=ends[0],
        latency_high_s=ends[1],
        ttft_s=None if point.phase == "decode" else prefill.cost["latency_s"],
        step_time_s=decode.cost["latency_s"] / point.decode_steps if point.decode_steps else None,
        facts=facts,
    )
