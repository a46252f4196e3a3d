"""A point's compiled and timed programs → the times and facts of its row."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engines.compiled.compile.compiler import SEED
from engines.compiled.cost.account import Account
from engines.compiled.cost.select import cost_model_of
from engines.compiled.target.base import Target
from engines.compiled.target.installed import compiler_for
from engines.compiled.target.memory import peak_bytes
from engines.compiled.timed import TimedProgram
from engines.core.engine import Estimate, Facts
from engines.core.point import Point
from engines.core.versions import versions_of
from engines.transformer.partition.resolve import resolved_form
from engines.transformer.partition.resolve_experts import resolved_experts
from engines.weights.lengths import counted, lengths_of

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from engines.transformer.partition.plan import Plan


def estimate_of(
    point: Point,
    target: Target,
    mesh: "Mesh",
    plan: "Plan",
    phases: Sequence[TimedProgram],
    details: Mapping[str, Any],
) -> Estimate:
    """The estimate of the chosen plan. ``details`` are added to those made here."""
    times = {phase.name: phase.account.total_s for phase in phases}
    total = _sum_accounts(phases)
    sharded = _sharded_bytes(mesh, plan)
    temporaries = max(phase.compiled.memory["temp"] for phase in phases)
    resolved = {
        "runtime": "xla",
        "mesh_shape": list(point.mesh),
        "ffn_layout": None if plan.chips == 1 else plan.ffn_layout,
        "attn_sharding": None if plan.chips == 1 else plan.attn_sharding,
        "collectives": plan.collectives,
        **({"latent_attention": form} if (form := resolved_form(plan, point.phase, point.input_len)) else {}),
        **resolved_experts(plan),
    }
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
        peak_hbm_bytes=target.cores * max(peak_bytes(phase.compiled.memory) for phase in phases),
        weights_bytes=target.cores * sharded["weights"],
        kv_cache_bytes=target.cores * sharded["cache"],
        activations_bytes=target.cores * temporaries,
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
            "unestimated_s": total.unestimated_s,
            "unestimated_instructions": dict(total.unestimated),
            "unestimated_by_label_s": dict(total.unestimated_by_label_s),
            "unknown_s": total.unknown_s,
            "unknown_instructions": _merged([phase.unknown for phase in phases]),
            "compile_s": {phase.name: phase.compiled.compile_s for phase in phases},
            **cost_model_of(point.slice()).describe(),
            "compiled_program": _program_sentence(point, plan) + _depths_sentence(plan, phases),
            "unrolled": plan.unrolled,
            "attention_batch_axes": "".join(plan.axes.sequence),
            "padded_heads": plan.padded.heads,
            **details,
        },
    )
    return Estimate(
        latency_s=sum(times.values()),
        ttft_s=times.get("prefill"),
        step_time_s=times["decode"] / point.decode_steps if point.decode_steps and "decode" in times else None,
        facts=facts,
    )


def _sharded_bytes(mesh: Any, plan: "Plan") -> dict[str, float]:
    """Bytes of one device's weights and cache, without padding."""
    import jax

    from engines.transformer.layers.kv_cache import abstract_cache
    from engines.transformer.params.parameters import abstract_parameters
    from engines.transformer.params.quantize import stored_bytes

    described: dict[str, Any] = {"weights": abstract_parameters(plan, mesh), "cache": abstract_cache(plan, mesh)}
    return {
        name: sum(stored_bytes(each.sharding.shard_shape(each.shape), each.dtype) for each in jax.tree.leaves(arrays))
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


def _program_sentence(point: Point, plan: "Plan") -> str:
    prefill = f"one prefill of {point.input_len} tokens a sequence"
    decode = (
        f"{point.decode_steps} steps in one loop, each attending over the {plan.cache_len} positions of its cache, "
        "as its shapes are static"
    )
    return {"prefill": prefill, "decode": decode, "generate": f"{prefill}; {decode}"}[point.phase]
