"""Why no strategy answers a point."""

from engines.core.point import Point


def impossible(point: Point) -> str:
    """Which key of a point that no strategy answers is why."""
    model, chips = point.model, point.num_chips
    if point.attn_sharding == "sequence":
        heads = 1 if model.attention.is_latent else model.num_kv_heads
        return (
            f"attn_sharding=sequence: needs a layout that gathers no weights, and more than num_kv_heads={heads} chips "
            f"to split positions over; use ffn_layout=ws_1d or ws_2d, or attn_sharding=heads on {chips} chips"
        )
    if model.num_experts is not None:
        key = "expert_parallel" if point.chip.kind == "gpu" else "expert_axes"
        width = model.experts.expert.d_ff if model.experts else 0
        return (
            f"{key}={getattr(point, key)}: num_experts={model.num_experts} and the {width} columns of an expert do not "
            f"split over {chips} chips so; use {key} whose chips divide the experts, and whose rest the columns"
        )
    return f"attn_sharding={point.attn_sharding} with ffn_layout={point.ffn_layout}: is not possible on {chips} chips"
