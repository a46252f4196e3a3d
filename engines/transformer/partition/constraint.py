"""Sharding constraints for a compiler that partitions the program (gspmd)."""

from collections.abc import Callable, Sequence

from jax import Array, lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan

Split = Callable[[Plan], Sequence[Axes]]
"""Which axes of a plan split each dimension of a value; () for a dimension that is not split."""


def residual(plan: Plan) -> Sequence[Axes]:
    """The residual stream: [tokens, E]."""
    return plan.axes.batch, plan.axes.residual


def columns(plan: Plan) -> Sequence[Axes]:
    """[tokens, chunks, width] between two projections."""
    return plan.axes.batch, plan.axes.column, ()


def constrain(plan: Plan, x: Array, split: Split) -> Array:
    """Constrain how the global array x is split; x itself where the program runs inside ``shard_map``."""
    if plan.annotation is None:
        return x
    cut, mesh = plan.annotation
    spec = P(*(axes or None for axes in split(cut)))
    constrained: Array = lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
    return constrained
