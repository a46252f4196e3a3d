"""Megatron's keys as a plan: tensor-parallel ranks share a layer in one dimension, pipeline stages share the layers."""

from dataclasses import replace
from typing import Any, Final

from engines.core.errors import InvalidRequest, Unsupported
from engines.core.point import Point
from engines.core.slice import MeshShape
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


def staged_plan(point: Point, mesh_shape: MeshShape | None = None) -> Plan:
    """Each stage runs ``ws_1d``, whose residual stream is split over ranks, on a mesh of its own: ``mesh_shape``.

    Left out, ranks lie along z: [1, 1, tensor_parallel].

    Raises:
        InvalidRequest: the batch does not split into micro-batches.
        Unsupported: the stages cannot carry the model, or another key does not go with ranks.
    """
    stages = point.pipeline_degree
    for key, allowed in (
        ("ffn_layout", ("auto", "ws_1d")),
        ("mesh_shape", (None,)),
        *(ONE_PROGRAM * (stages > 1)),
    ):
        if getattr(point, key) not in allowed:
            raise Unsupported(
                f"{key}={getattr(point, key)}: engine={point.engine} with tensor_parallel={point.tensor_degree} and "
                f"pipeline_parallel={stages} runs {key}={allowed[-1] or 'auto'} alone; leave it out"
            )
    attention = over_heads(point.model) if point.attn_sharding == "auto" else point.attn_sharding
    asked = replace(point, attn_sharding=attention)
    plan = plan_of(asked, ffn_layout="ws_1d", mesh_shape=mesh_shape or (1, 1, point.tensor_degree))
    if stages == 1:
        return plan
    parts = point.micro_batches or min(point.batch_size, stages)
    if point.batch_size % parts:
        raise InvalidRequest(
            "batch_size",
            point.batch_size,
            f"does not split into {parts} micro-batches of engine={point.engine}",
            "use a multiple of micro_batches, which is pipeline_parallel where it is left out",
        )
    if len(plan.stacks) > 1 or point.model.num_layers % stages:
        raise Unsupported(
            f"pipeline_parallel={stages}: engine={point.engine} splits layers of one kind evenly; "
            f"model={point.model.name} has {point.model.num_layers} of {len(plan.stacks)} kinds; use a divisor of the "
            "layers, or engine=torch"
        )
    return replace(plan, batch_size=point.batch_size // parts, stages=stages, micro_batches=parts)


def ranks_as_run(point: Point, plan: Plan) -> dict[str, Any]:
    """The keys that say how a point was cut by ranks and stages; {} of one that was not."""
    if not asks_for_ranks(point):
        return {}
    found = {"tensor_parallel": point.tensor_degree, "pipeline_parallel": plan.stages}
    return found if plan.stages == 1 else {**found, "micro_batches": plan.micro_batches, "mesh_shape": None}
