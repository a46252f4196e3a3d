"""Megatron's keys for the JAX engine: tensor-parallel ranks along z, pipeline stages along an axis of their own."""

from dataclasses import replace
from typing import Final

from engines.core.errors import InvalidRequest, Unsupported
from engines.core.point import Point
from engines.jax.settings import Settings
from engines.transformer.partition.plan import Plan
from engines.transformer.partition.resolve import over_heads, plan_of

ONE_PROGRAM: Final = (
    ("partitioner", ("manual",)),
    ("collectives", ("auto", "plain")),
    ("lengths", ("equal",)),
    ("speculative", ("none",)),
    ("exit_threshold", (None,)),
    ("offload", ("none",)),
    ("offload_kv", ("none",)),
    ("phase", ("prefill", "decode", "generate")),
)
"""What a pipeline's program runs alone."""


def asks_for_ranks(point: Point) -> bool:
    """Whether the point is cut by tensor_parallel and pipeline_parallel, and not by ffn_layout and mesh_shape."""
    return point.tensor_parallel is not None or point.pipeline_parallel is not None


def staged_plan(point: Point, settings: Settings) -> Plan:
    """Each stage is a slice [1, 1, tensor_parallel] that runs ``ws_1d``, whose residual stream is split over ranks.

    Raises:
        InvalidRequest: the batch does not split into micro-batches.
        Unsupported: the stages cannot carry the model, or another key does not go with ranks.
    """
    stages, parts = point.pipeline_degree, 1
    for key, allowed in (
        ("ffn_layout", ("auto", "ws_1d")),
        ("mesh_shape", (None,)),
        *(ONE_PROGRAM * (stages > 1)),
    ):
        if getattr(point, key) not in allowed:
            raise Unsupported(
                f"{key}={getattr(point, key)}: engine=jax with tensor_parallel={point.tensor_degree} and "
                f"pipeline_parallel={stages} runs {key}={allowed[-1] or 'auto'} alone; leave it out"
            )
    attention = over_heads(point.model) if point.attn_sharding == "auto" else point.attn_sharding
    asked = replace(point, attn_sharding=attention)
    plan = plan_of(asked, ffn_layout="ws_1d", mesh_shape=(1, 1, point.tensor_degree))
    if stages == 1:
        return plan
    parts = point.micro_batches or min(point.batch_size, stages)
    if point.batch_size % parts:
        raise InvalidRequest(
            "batch_size",
            point.batch_size,
            f"does not split into {parts} micro-batches of engine=jax",
            "use a multiple of micro_batches, which is pipeline_parallel where it is left out",
        )
    if len(plan.stacks) > 1 or point.model.num_layers % stages:
        raise Unsupported(
            f"pipeline_parallel={stages}: engine=jax splits layers of one kind evenly; model={point.model.name} has "
            f"{point.model.num_layers} of {len(plan.stacks)} kinds; use a divisor of the layers, or engine=torch"
        )
    for name, off in (("temperature", 0.0), ("stop_token", None), ("prefill_chunk", None), ("shared_prefix", 0)):
        if getattr(settings, name) != off:
            raise Unsupported(
                f"engine.{name}={getattr(settings, name)}: does not go with pipeline_parallel={stages}; leave it out"
            )
    return replace(plan, batch_size=point.batch_size // parts, stages=stages, micro_batches=parts)
