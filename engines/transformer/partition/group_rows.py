"""Rows of a chip's matrices that groups of weights must divide."""

from typing import TYPE_CHECKING

from engines.transformer.partition.overlap import Overlap

if TYPE_CHECKING:
    from engines.transformer.partition.plan import Plan


def rows_of_a_chip(plan: "Plan") -> dict[str, int]:
    """Rows of each kind of matrix that lie together on a chip, or in a ring's share of it."""
    axes, embed = plan.axes, plan.model.d_model
    latent = {name: getattr(plan.model, name) for name in ("q_latent_dim", "kv_latent_dim")}
    inputs = embed // axes.size(axes.stored_embed)
    if plan.overlap is Overlap.RING_OF_ACTIVATIONS and len(axes.scattered) == 1:
        inputs //= axes.size(axes.scattered)
    found = {"d_model": inputs, "heads · head_dim": plan.padded.o_width}
    if any(not kind.has_experts for kind in plan.model.layer_kinds):
        found["d_ff"] = plan.padded.ffn_width
    experts = plan.model.experts
    if experts is not None:
        found["expert_d_ff"] = experts.expert.d_ff // plan.experts.chunks
        found |= {} if experts.shared is None else {"shared_expert_d_ff": experts.shared.d_ff // plan.chips}
    return found | {name: size for name, size in latent.items() if size is not None}
