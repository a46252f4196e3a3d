"""A point's compiled and timed programs → the times and facts of its row."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engines.compiled.compile.compiler import SEED
from engines.compiled.cost.account import Account
from engines.compiled.cost.select import cost_model_of
from engines.compiled.exits import exit_details
from engines.compiled.operators import operators_of
from engines.compiled.speculative import OF_A_DRAFT, details_of, tokens_of_a_turn
from engines.compiled.target.base import Target
from engines.compiled.target.installed import compiler_for
from engines.compiled.target.memory import peak_bytes
from engines.compiled.timed import TimedProgram
from engines.core.engine import Estimate, Facts
from engines.core.point import Point
from engines.core.versions import versions_of
from engines.transformer.partition.resolve import resolved_form, resolved_layout
from engines.transformer.partition.resolve_experts import resolved_experts
from engines.transformer.partition.stages import ranks_as_run
from engines.weights.lengths import counted, lengths_of

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from engines.transformer.partition.plan import Plan


def estimate_of(
    point: Point,
    target: Target,
    mesh: "Mesh",
    plans: Sequence["Plan"],
    phases: Sequence[TimedProgram],
    details: Mapping[str, Any],
) -> Estimate:
    """The estimate of the chosen plan, the first of ``plans``; another is that of a draft model beside it.

    ``details`` are added to those made here.
    """
    plan = plans[0]
    times = {phase.name: phase.account.total_s for phase in phases}
    total = _sum_accounts(phases)
    held = [_sharded_bytes(mesh, each) for each in plans]
    sharded = {name: sum(each[name] for each in held) for name in ("weights", "cache")}
    temporaries = max(phase.compiled.memory["temp"] for phase in phases)
    resolved = {
        "runtime": "xla",
        "mesh_shape": list(point.mesh),
        **resolved_layout(plan),
        "collectives": plan.collectives,
        **({"latent_attention": form} if (form := resolved_form(plan, point.phase, point.input_len)) else {}),
        **resolved_experts(plan),
        **ranks_as_run(point, plan),
    }
    mean_layers, of_exits = exit_details(point)
    given = point.axes()
    real = int(lengths_of(point, SEED).sum()) if point.lengths != "equal" else point.batch_size * point.input_len
    if point.lengths != "equal":
        details = {"real_tokens": real, "padded_tokens": point.batch_size * point.input_len, **details}
    facts = Facts(
        processed_tokens=counted(point, real),
        cached_tokens=real,
        resolved={key: value for key, value in resolved.items() if given[key] != value},
        compute_s=total.compute_s,
        memory_s=total.memory_s,
        communication_s=total.communication_s,
        overlapped_s=total.overlapped_s,
        overhead_s=total.copy_wait_s,
        peak_hbm_bytes=target.cores * max(_peak_beside(phase, held) for phase in phases),
        weights_bytes=target.cores * sharded["weights"],
        kv_cache_bytes=target.cores * sharded["cache"],
        activations_bytes=target.cores * temporaries,
        tokens_per_turn=tokens_of_a_turn(point),
        mean_layers=mean_layers,
        device_kind=target.topology_name,
        versions=versions_of(compiler_for(point.chip).libraries),
        details={
            "exposed_s": total.exposed_s,
            **({"least_s": sum(least)} if (least := [each.least_s for each in phases if each.least_s]) else {}),
            "link_latency_s": total.latency_s,
            "seconds_by_kind": dict(total.by_kind.most_common()),
            "hbm_bytes_moved": total.hbm_bytes,
            "flops": total.flops or None,
            "hot_loop": {phase.name: phase.hot_loop for phase in phases},
            **_operators(point, plan, phases),
            "unestimated_s": total.unestimated_s,
            "unestimated_instructions": dict(total.unestimated),
            "unestimated_by_label_s": dict(total.unestimated_by_label_s),
            "unknown_s": total.unknown_s,
            "unknown_instructions": _merged([phase.unknown for phase in phases]),
            "compile_s": {phase.name: phase.compiled.compile_s for phase in phases},
            **cost_model_of(point.slice(), target.places).describe(),
            "compiled_program": _program_sentence(point, plan) + _depths_sentence(plan, phases),
            "unrolled": plan.unrolled,
            "attention_batch_axes": "".join(plan.axes.sequence),
            "padded_heads": plan.padded.heads,
            **(details_of(point, phases) if point.speculative != "none" else {}),
            **of_exits,
            **details,
        },
    )
    reads = {name: seconds for name, seconds in times.items() if name.endswith("prefill")}
    decode_s = sum(times.values()) - sum(reads.values())
    return Estimate(
        latency_s=sum(times.values()),
        ttft_s=sum(reads.values()) if reads else None,
        step_time_s=decode_s / point.decode_steps if point.decode_steps and len(reads) < len(times) else None,
        facts=facts,
    )


def _peak_beside(phase: TimedProgram, held: Sequence[Mapping[str, float]]) -> float:
    """Peak bytes of a device that runs a phase, with what the other of two models holds meanwhile."""
    other = 0 if phase.name in OF_A_DRAFT else 1
    return peak_bytes(phase.compiled.memory) + (sum(held[other].values()) if len(held) > 1 else 0.0)


def _sharded_bytes(mesh: Any, plan: "Plan") -> dict[str, float]:
    """Bytes of one device's weights and cache, without padding; weights in host memory are not on it."""
    import jax

    from engines.transformer.layers.kv_cache import abstract_cache
    from engines.transformer.params.parameters import abstract_parameters
    from engines.transformer.params.quantize import stored_bytes

    described: dict[str, Any] = {"weights": abstract_parameters(plan, mesh), "cache": abstract_cache(plan, mesh)}
    return {
        name: sum(
            stored_bytes(each.sharding.shard_shape(each.shape), each.dtype)
            for each in jax.tree.leaves(arrays)
            if each.sharding.memory_kind != "pinned_host"
        )
        for name, arrays in described.items()
    }


def _sum_accounts(phases: Sequence[TimedProgram]) -> Account:
    total = Account()
    for phase in phases:
        total.add(phase.account, 1)
    return total


def _merged(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for each in counts:
        for opcode, count in each.items():
            merged[opcode] = merged.get(opcode, 0) + count
    return merged


def _depths_sentence(plan: "Plan", phases: Sequence[TimedProgram]) -> str:
    """How the time of unrolled layers was found; nothing where layers are looped over."""
    if not plan.unrolled:
        return ""
    depths = next((phase.depths for phase in phases if phase.depths), None)
    layers = plan.model.num_layers
    if depths is None:
        return f"; all {layers} layers are unrolled"
    few, more = depths
    return f"; of {layers} unrolled layers, timed on the line through its programs of {few} and {more} layers"


def _operators(point: Point, plan: "Plan", phases: Sequence[TimedProgram]) -> dict[str, Any]:
    """What each operator became, of programs of several chips whose text has all layers, and no stages."""
    if plan.chips == 1 or plan.stages > 1 or any(phase.depths for phase in phases):
        return {}
    cost, found = cost_model_of(point.slice()), {}
    for phase in phases:
        decodes = phase.name == "decode"
        tokens, passes = (1, point.decode_steps) if decodes else (point.input_len, 1)
        found[phase.name] = operators_of(phase, plan, plan.batch_size * tokens, cost, passes)
    return {"operators": found}


def _program_sentence(point: Point, plan: "Plan") -> str:
    prefill = f"one prefill of {point.input_len} tokens a sequence"
    decode = (
        f"{point.decode_steps} steps in one loop, each attending over the {plan.cache_len} positions of its cache, "
        "as its shapes are static"
    )
    if point.speculative != "none":
        decode = (
            f"one turn, in which {point.draft_len} tokens are proposed and a pass of {(point.draft_len or 0) + 1} "
            f"verifies them, each attending over the {plan.cache_len} positions of its cache; times the turns"
        )
    if point.exit_threshold is not None:
        decode += (
            "; after every exit layer the rest of a step passes tokens, or only makes keys and values, by exit_rate"
        )
    if plan.stages > 1:
        prefill, decode = (
            f"{each}, in {plan.micro_batches} micro-batches through {plan.stages} stages, of which the slowest decides"
            for each in (prefill, decode)
        )
    return {"prefill": prefill, "decode": decode, "generate": f"{prefill}; {decode}"}[point.phase]
