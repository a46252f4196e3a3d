"""Sharding constraints for a compiler that partitions the program (gspmd).

A plan splits a value as its layout does, or as :class:`engines.core.shardings.Shardings` of its own say of the value's
name.
"""

from collections.abc import Callable, Iterable, Sequence

from jax import Array, lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from engines.transformer.partition.axes import Axes
from engines.transformer.partition.plan import Plan

Split = Callable[[Plan], Sequence[Axes]]
"""Which axes of a plan split each dimension of a value; () for a dimension that is not split."""
Parts = Iterable[tuple[str, int]]
"""The tensors of a projection's matrix with their widths."""


def told(plan: Plan, name: str) -> list[Axes] | None:
    """The axes of each dimension of the value of that name, of a plan with shardings; None of others."""
    return None if plan.shardings is None else [tuple(axes) for axes in plan.shardings[name]]


def projection_of(parts: Parts) -> str:
    """The projection that has these tensors: ``attn``, ``ffn``, or ``fused`` of both."""
    names = {name for name, _ in parts}
    attended = names & {"q", "k", "v", "o", "q_a", "kv_a"}
    return "ffn" if not attended else "attn" if names == attended else "fused"


def residual(plan: Plan) -> Sequence[Axes]:
    """The residual stream where a layer starts: [tokens, E]."""
    return told(plan, "residual") or (plan.axes.batch, plan.axes.residual)


def stream_behind(parts: Parts) -> Split:
    """The residual stream that a projection's matmul out joins: [tokens, E]."""
    before_ffn = projection_of(parts) == "attn"

    def split(plan: Plan) -> Sequence[Axes]:
        return told(plan, "middle" if before_ffn and plan.model.block == "serial" else "residual") or residual(plan)

    return split


def operand(parts: Parts, side: str) -> Split:
    """What a matmul ``in`` or ``out`` of a projection reads: [tokens, rows]."""
    name = f"{projection_of(parts)}.{side}"

    def split(plan: Plan) -> Sequence[Axes]:
        used = told(plan, name)
        return used[:2] if used else (plan.axes.batch, plan.axes.embed if side == "in" else plan.axes.ffn)

    return split


def read_stream(plan: Plan, x: Array, parts: Parts) -> Array:
    """x [tokens, E] of the stream, normed, as a projection's matmul in reads it.

    Shardings say where the norm runs: before what it makes is sent.
    """
    name = "middle" if projection_of(parts) == "ffn" and plan.model.block == "serial" else "residual"
    stream = told(plan, name)
    if stream is not None:
        x = constrain(plan, x, lambda _plan: stream)
    return constrain(plan, x, operand(parts, "in"))


def matrix_in_use(plan: Plan, parts: Parts, side: str) -> Split | None:
    """A matrix as its matmul reads it, [rows, columns], of a plan whose shardings gather it or split it otherwise.

    None where it is read as it lies: a constraint would copy it out of its stack in every layer.
    """
    name = f"{projection_of(parts)}.{side}"
    used, stored = told(plan, name), told(plan, f"{name}.weights")
    if used is None or used[1:] == stored:
        return None
    cut = used[1:]
    return lambda _plan: cut


def product(plan: Plan, x: Array, parts: Parts, side: str) -> Array:
    """What a matmul ``in`` or ``out`` makes, [tokens, columns], split as its own shardings say, its terms summed.

    Without it a compiler that is told only where the value goes next may gather the matrix to make it there.
    """
    projection = projection_of(parts)
    used = told(plan, f"{projection}.{side}")
    if used is None:
        return x
    tokens, rows, columns = used
    target = made_columns(parts)(plan) if side == "in" else stream_behind(parts)(plan)
    scattered = [tuple(axis for axis in rows if axis in dim) for dim in target[:2]]
    return constrain(plan, x, lambda _plan: (tokens + scattered[0], columns + scattered[1]))


def made_columns(parts: Parts) -> Split:
    """[tokens, chunks, width] that a projection's matmul in makes."""
    name = f"{projection_of(parts)}.columns"

    def split(plan: Plan) -> Sequence[Axes]:
        return (*(told(plan, name) or (plan.axes.batch, plan.axes.column)), ())

    return split


def read_columns(parts: Parts) -> Split:
    """[tokens, chunks, width] that a projection's matmul out reads, behind attention or the activation."""
    projection = projection_of(parts)
    name = "ffn.columns" if projection == "ffn" else f"{projection}.joined"

    def split(plan: Plan) -> Sequence[Axes]:
        return (*(told(plan, name) or (plan.axes.batch, plan.axes.column)), ())

    return split


def around_experts(plan: Plan) -> tuple[Sequence[Axes], Sequence[Axes]]:
    """The stream [tokens, E] whose norm the experts read, and the one that what they make joins."""
    before = told(plan, "middle" if plan.model.block == "serial" else "residual")
    return before or residual(plan), residual(plan)


def constrain(plan: Plan, x: Array, split: Split) -> Array:
    """Constrain how the global array x is split; x itself where the program runs inside ``shard_map``."""
    if plan.annotation is None:
        return x
    cut, mesh = plan.annotation
    spec = P(*(axes or None for axes in split(cut)))
    constrained: Array = lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
    return constrained
