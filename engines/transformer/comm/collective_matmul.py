"""Matmuls with the collectives around them, as the plan's overlap strategy orders them.

Plain: all-gather, matmul, reduce-scatter. In a ring a collective becomes permutes between partial matmuls, so that
communication overlaps the MXU whatever the compiler's schedule: either activations circulate while weights stay, or
gathered weights circulate while activations stay. A collective of activations over several axes is left to the compiler
(:func:`ring_axes`).
"""

from functools import partial
from typing import Any, Final, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.comm.collectives import all_gather, axis_index, reduce_scatter
from engines.transformer.comm.exchange import whole_sum
from engines.transformer.comm.ring import concatenated, ring_axes, ring_of
from engines.transformer.params.grouped import Weights
from engines.transformer.params.memory_layout import SUBLANES
from engines.transformer.params.quantize import dequantize, einsum, quantize_tokens
from engines.transformer.params.tree import Stacked
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.constraint import Split, constrain
from engines.transformer.partition.overlap import Overlap
from engines.transformer.partition.plan import Plan

MATMUL: Final = "tr,rc->tc"
CPU_ROWS: Final = 4
"""The fewest that take no longer than two, in XLA's matmuls of bfloat16 on a CPU that multiplies it."""


class Matmul(NamedTuple):
    """The mesh axes of one projection x: [tokens, rows] · w: [rows, columns].

    x is gathered over ``gathered`` along its rows before; the result is scattered over ``scattered`` along its columns
    after, or summed over ``summed``. w itself is gathered over ``contracted`` along its rows, over ``produced`` along
    its columns. ``told`` says how a compiler that partitions is to split w in use, of a plan with shardings.
    """

    gathered: Axes
    scattered: Axes
    contracted: Axes
    produced: Axes
    summed: Axes = ()
    told: Split | None = None


def matmul_in(plan: Plan) -> Matmul:
    """[tokens, E] · [E, chunks, width], weights as [E.stored_embed, columns.stored_ffn]."""
    rows, columns = plan.axes.gathered
    return Matmul(plan.axes.scattered, plan.axes.embed, rows, columns)


def matmul_out(plan: Plan) -> Matmul:
    """[tokens, chunks, width] · [chunks, width, E], weights as [columns.stored_ffn, E.stored_embed]."""
    rows, columns = plan.axes.gathered
    return Matmul(plan.axes.embed, plan.axes.scattered, columns, rows, plan.axes.summed)


def project(plan: Plan, matmul: Matmul, x: Array, w: Stacked, out_dtype: Any = None) -> Array:
    """x: [tokens, rows.gathered] · w: [rows.contracted, columns.produced] → [tokens, columns.scattered].

    In x's dtype, or in ``out_dtype``. The plan's overlap strategy decides how the collectives run.
    """
    kind = out_dtype or x.dtype
    x, scale = quantize_tokens(plan, x, matmul.gathered)
    if plan.overlap is Overlap.RING_OF_ACTIVATIONS:
        return _ring_of_activations(plan, matmul, x, w, scale, kind)
    if plan.overlap is Overlap.RING_OF_WEIGHTS:
        out = _ring_of_weights(plan, matmul, all_gather(x, matmul.gathered, 1), w.whole())
        return reduce_scatter(dequantize(out, scale).astype(kind), matmul.scattered, 1)
    return _plain(plan, matmul, x, w, scale, kind)


def project_plain(
    plan: Plan, matmul: Matmul, x: Array, w: Stacked, out_dtype: Any = None, factor: Array | None = None
) -> Array:
    """:func:`project` with plain collectives, whatever the strategy: for matmuls that are too small for a ring.

    ``factor`` [columns] multiplies the products before they are summed over chips.
    """
    kind = out_dtype or x.dtype
    x, scale = quantize_tokens(plan, x, matmul.gathered)
    return _plain(plan, matmul, x, w, scale, kind, factor)


def _plain(
    plan: Plan, matmul: Matmul, x: Array, w: Stacked, scale: Array | None, kind: Any, factor: Array | None = None
) -> Array:
    whole = all_gather(all_gather(w.whole(), matmul.contracted, 0), matmul.produced, 1)
    if matmul.told is not None:
        assert isinstance(whole, Array)
        whole = constrain(plan, whole, matmul.told)
    x = all_gather(x, matmul.gathered, 1)
    if not plan.fuses_rows:
        # The barrier keeps the producer of x (a norm) from being fused into the matmul, which would recompute it for
        # each tile.
        x = lax.optimization_barrier(x)
    exact = scale is None and factor is None
    out = dequantize(few_rows(plan, MATMUL, x, whole, kind if exact else jnp.float32), scale)
    return combined(plan, matmul, (out if factor is None else out * factor).astype(kind))


def few_rows(plan: Plan, equation: str, x: Array, w: Weights, out_dtype: Any = None) -> Array:
    """:func:`einsum` of x [tokens, …], with x padded where the compiler is slow with so few rows.

    A TPU's multiplies a single row in its vector units, which takes several times as long as the :data:`SUBLANES` rows
    of a tile. A CPU's first converts the whole matrix to float32 for a single row in bfloat16, and multiplies
    :data:`CPU_ROWS` in bfloat16.
    """
    tokens = x.shape[0]
    if tokens >= SUBLANES:
        return einsum(plan, equation, x, w, out_dtype)

    def padded(size: int, x: Array, w: Weights) -> Array:
        # Without barriers the compiler removes the padding again.
        rows = lax.optimization_barrier(jnp.pad(x, ((0, size - tokens), (0, 0))))
        products: Array = lax.optimization_barrier(einsum(plan, equation, rows, w, out_dtype))
        return products[:tokens]

    def as_it_is(x: Array, w: Weights) -> Array:
        return einsum(plan, equation, x, w, out_dtype)

    on_cpu = partial(padded, CPU_ROWS) if tokens == 1 and x.dtype == jnp.bfloat16 else as_it_is
    out: Array = lax.platform_dependent(x, w, tpu=partial(padded, SUBLANES), cpu=on_cpu, default=as_it_is)
    return out


def combined(plan: Plan, matmul: Matmul, x: Array) -> Array:
    """x: [tokens, columns] {unreduced over scattered or summed} → [tokens, columns.scattered]."""
    return whole_sum(plan, x, matmul.summed) if matmul.summed else reduce_scatter(x, matmul.scattered, 1)


def _ring_of_activations(plan: Plan, matmul: Matmul, x: Array, w: Stacked, scale: Array | None, kind: Any) -> Array:
    """Shards of x arrive during the first block's partial matmuls; sums are sent during the other blocks'."""
    before, after = ring_axes(matmul.gathered), ring_axes(matmul.scattered)
    if not before:
        x = lax.optimization_barrier(all_gather(x, matmul.gathered, 1))
    ring, shard = ring_of(plan), x.shape[1]
    whole: list[Array] = []

    def partial(columns: slice) -> Array:
        if whole:
            return dequantize(einsum(plan, MATMUL, whole[0], w.block(slice(None), columns), jnp.float32), scale)
        out, parts = None, []
        for part in ring.all_gather(plan, x, before, 1):
            start = part.block * shard + part.offset
            block = w.block(slice(start, start + part.values.shape[1]), columns)
            term = einsum(plan, MATMUL, part.values, block, jnp.float32)
            out = term if out is None else out + term
            parts.append((start, part.values))
        whole.append(concatenated(parts))
        assert out is not None
        return dequantize(out, scale)

    out = ring.reduce_scatter(plan, partial, after, w.stack.shape[2], kind)
    return out if after else reduce_scatter(out, matmul.scattered, 1)


def _ring_of_weights(plan: Plan, matmul: Matmul, x: Array, w: Weights) -> Array:
    """Shards of w circulate, columns in the outer ring and rows in the inner one; returns float32."""
    rows, columns = w.shape
    ring, blocks = ring_of(plan), []
    for column_part in ring.all_gather(plan, w, matmul.produced, 1):
        out = None
        for part in ring.all_gather(plan, column_part.values, matmul.contracted, 0):
            source = (axis_index(matmul.contracted) + part.block) % plan.axes.size(matmul.contracted)
            start = source * rows + part.offset
            mine = lax.dynamic_slice_in_dim(x, start, part.values.shape[0], axis=1)
            term = einsum(plan, MATMUL, mine, part.values, jnp.float32)
            out = term if out is None else out + term
        blocks.append((column_part.block * columns + column_part.offset, out))
    whole = concatenated([(start, block) for start, block in blocks if block is not None])
    return jnp.roll(whole, axis_index(matmul.produced) * columns, 1) if matmul.produced else whole
