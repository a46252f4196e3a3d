"""A peer's timed phases → the times and facts of its row."""

from collections.abc import Mapping, Sequence
from typing import Any

from engines.compiled.cost.account import Account
from engines.compiled.cost.select import cost_model_of
from engines.compiled.peers.line import PeerPhase
from engines.compiled.target.select import target_of
from engines.compiled.target.tpu import TpuTarget
from engines.core.engine import Estimate, Facts
from engines.core.point import Point


def estimate_of(
    point: Point, phases: Sequence[PeerPhase], program_id: str, versions: Mapping[str, str], details: Mapping[str, Any]
) -> Estimate:
    """The estimate of a point. A decode phase is one step, which runs ``point.decode_steps`` times."""
    target = target_of(point.slice())
    assert isinstance(target, TpuTarget)
    turns = {"prefill": 1, "decode": point.decode_steps}
    times = {phase.name: turns[phase.name] * phase.account.total_s for phase in phases}
    total = Account()
    for phase in phases:
        total.add(phase.account, turns[phase.name])
    last = phases[-1]
    facts = Facts(
        program_id=program_id,
        resolved={"mesh_shape": list(point.mesh)} if point.mesh_shape is None else {},
        compute_s=total.compute_s,
        memory_s=total.memory_s,
        communication_s=total.communication_s,
        overlapped_s=total.overlapped_s,
        overhead_s=total.copy_wait_s,
        peak_hbm_bytes=target.cores * max(phase.peak_bytes for phase in phases),
        weights_bytes=target.cores * last.held_bytes["weights"],
        kv_cache_bytes=target.cores * last.held_bytes["cache"],
        activations_bytes=target.cores * max(phase.temporary_bytes for phase in phases),
        device_kind=target.topology_name,
        versions=versions,
        details={
            "exposed_s": total.exposed_s,
            "link_latency_s": total.latency_s,
            "seconds_by_kind": dict(total.by_kind.most_common()),
            "hbm_bytes_moved": total.hbm_bytes,
            "flops": total.flops or None,
            "hot_loop": {phase.name: phase.depths[-1].program.hot_loop for phase in phases},
            "unestimated_s": total.unestimated_s,
            "unestimated_by_label_s": dict(total.unestimated_by_label_s),
            "unknown_s": total.unknown_s,
            "unknown_instructions": {
                label: count for phase in phases for label, count in phase.depths[-1].program.unknown.items()
            },
            "compile_s": {phase.name: phase.compile_s for phase in phases},
            **cost_model_of(point.slice()).describe(),
            "compiled_program": "; ".join(_sentence(point, phase) for phase in phases),
            **details,
        },
    )
    return Estimate(
        latency_s=sum(times.values()),
        ttft_s=times.get("prefill"),
        step_time_s=times["decode"] / point.decode_steps if "decode" in times else None,
        facts=facts,
    )


def _sentence(point: Point, phase: PeerPhase) -> str:
    """What was compiled, and how all layers follow from it."""
    what = (
        f"one prefill of {point.input_len} tokens a sequence"
        if phase.name == "prefill"
        else f"one step over a cache of {point.input_len + point.output_len} positions, times {point.decode_steps}"
    )
    layers = point.model.num_layers
    if len(phase.depths) == 1:
        return f"{what}; all {layers} layers are unrolled"
    few, more = (each.layers for each in phase.depths)
    return f"{what}; of {layers} unrolled layers, timed on the line through its programs of {few} and {more} layers"
