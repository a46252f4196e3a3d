"""Whether what attention is split over goes with the rest of a plan."""

from typing import TYPE_CHECKING

from engines.core.errors import InvalidRequest

if TYPE_CHECKING:
    from engines.transformer.partition.plan import Plan


def check_attention(plan: "Plan") -> None:
    """Check that what attention is split over goes with the rest of a plan.

    Raises:
        InvalidRequest: it does not.
    """
    if plan.model.attention.is_latent and plan.prefill.prefix:
        raise InvalidRequest(
            "engine.shared_prefix",
            plan.prefill.prefix,
            f"does not go with the latent attention of model={plan.model.name}",
            "leave it out",
        )
    if plan.attn_sharding != "sequence" or plan.chips == 1:
        return
    shared = plan.axes.size(plan.axes.positions)
    if shared == 1:
        raise InvalidRequest(
            "attn_sharding",
            plan.attn_sharding,
            f"finds no axis of mesh_shape={list(plan.mesh_shape)} in ffn_layout={plan.ffn_layout} that neither its "
            f"{plan.model.num_kv_heads} key/value heads nor its batch split",
            "use attn_sharding=heads or batch, or more chips",
        )
    if plan.partitioner == "gspmd":
        raise InvalidRequest(
            "partitioner",
            plan.partitioner,
            "knows no attn_sharding=sequence, whose chips write positions of their own",
            "use partitioner=manual",
        )
    if plan.prefill.prefix:
        raise InvalidRequest(
            "engine.shared_prefix",
            plan.prefill.prefix,
            "does not go with attn_sharding=sequence",
            "leave it out, or use attn_sharding=heads or batch",
        )
    if plan.prefill.chunk is not None and plan.prefill.chunk % shared:
        raise InvalidRequest(
            "engine.prefill_chunk",
            plan.prefill.chunk,
            f"must be a multiple of the {shared} chips that share a sequence's positions",
            f"use {-(-plan.prefill.chunk // shared) * shared}",
        )
