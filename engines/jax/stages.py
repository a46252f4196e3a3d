"""Megatron's keys for the JAX engine: the plan of ranks and stages, and which settings go with it."""

from engines.core.errors import Unsupported
from engines.core.point import Point
from engines.jax.settings import Settings
from engines.transformer.partition import stages
from engines.transformer.partition.plan import Plan


def staged_plan(point: Point, settings: Settings) -> Plan:
    """See :func:`engines.transformer.partition.stages.staged_plan`.

    Raises:
        InvalidRequest: the batch does not split into micro-batches.
        Unsupported: the stages cannot carry the model, or a key or a setting does not go with them.
    """
    plan = stages.staged_plan(point)
    if plan.stages == 1:
        return plan
    for name, off in (("temperature", 0.0), ("stop_token", None), ("prefill_chunk", None), ("shared_prefix", 0)):
        if getattr(settings, name) != off:
            raise Unsupported(
                f"engine.{name}={getattr(settings, name)}: does not go with pipeline_parallel={plan.stages}; "
                "leave it out"
            )
    return plan
