"""Matmuls with the collectives around them, in the order that the plan's overlap strategy gives.

Plain: gather, multiply, reduce-scatter. In a ring a collective becomes permutes between partial matmuls, so that links
and MXU work at the same time, whatever the compiler's schedule for collectives: activations circulate past weights that
stay, or weights that are gathered circulate past activations. A collective of activations over several axes is left to
the compiler (:func:`ring_axes`).
"""

from typing import Any, Final, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.comm.collectives import all_gather, axis_index, reduce_scatter
from engines.transformer.comm.ring import joined, ring_axes, ring_of
from engines.transformer.params.quantize import dequantize, product, quantize_tokens
from engines.transformer.params.tree import Stacked
from engines.transformer.partition.axes import Axes
from engines.transformer.partition.overlap import Overlap
from engines.transformer.partition.plan import Plan

MATMUL: Final = "tr,rc->tc"


class Matmul(NamedTuple):
    """Which axes one projection x: [tokens, rows] · w: [rows, columns] meets.

    ``gathered`` splits the rows of x before, ``scattered`` the columns of the result after. ``contracted`` and
    ``produced`` are the axes over which w itself is to be gathered, along rows and along columns.
    """

    gathered: Axes
    scattered: Axes
    contracted: Axes
    produced: Axes


def matmul_in(plan: Plan) -> Matmul:
    """[tokens, E] · [E, chunks, width], weights as [E.stored_embed, columns.stored_ffn]."""
    rows, columns = plan.axes.gathered
    return Matmul(plan.axes.ffn, plan.axes.embed, rows, columns)


def matmul_out(plan: Plan) -> Matmul:
    """[tokens, chunks, width] · [chunks, width, E], weights as [columns.stored_ffn, E.stored_embed]."""
    rows, columns = plan.axes.gathered
    return Matmul(plan.axes.embed, plan.axes.ffn, columns, rows)


def project(plan: Plan, matmul: Matmul, x: Array, w: Stacked, out_dtype: Any = None) -> Array:
    """x: [tokens, rows.gathered] · w: [rows.contracted, columns.produced] → [tokens, columns.scattered].

    In x's format, or in ``out_dtype``, with the collectives as the plan's overlap strategy has them.
    """
    kind = out_dtype or x.dtype
    x, scale = quantize_tokens(plan, x, matmul.gathered)
    if plan.overlap is Overlap.RING_OF_ACTIVATIONS:
        return _ring_of_activations(plan, matmul, x, w, scale, kind)
    if plan.overlap is Overlap.RING_OF_WEIGHTS:
        out = _ring_of_weights(plan, matmul, all_gather(x, matmul.gathered, 1), w.whole())
        return reduce_scatter(dequantize(out, scale).astype(kind), matmul.scattered, 1)
    return _plain(plan, matmul, x, w, scale, kind)


def project_plain(plan: Plan, matmul: Matmul, x: Array, w: Stacked, out_dtype: Any = None) -> Array:
    """:func:`project` with whole collectives, whatever the strategy: for products that are too small for a ring."""
    kind = out_dtype or x.dtype
    x, scale = quantize_tokens(plan, x, matmul.gathered)
    return _plain(plan, matmul, x, w, scale, kind)


def _plain(plan: Plan, matmul: Matmul, x: Array, w: Stacked, scale: Array | None, kind: Any) -> Array:
    whole = all_gather(all_gather(w.whole(), matmul.contracted, 0), matmul.produced, 1)
    # The barrier keeps what made x (a norm) out of the product, which would compute it again for every tile.
    x = lax.optimization_barrier(all_gather(x, matmul.gathered, 1))
    out = product(plan, MATMUL, x, whole, kind if scale is None else jnp.float32)
    return reduce_scatter(dequantize(out, scale).astype(kind), matmul.scattered, 1)


def _ring_of_activations(plan: Plan, matmul: Matmul, x: Array, w: Stacked, scale: Array | None, kind: Any) -> Array:
    """Shards of x arrive under the first block's partial products, sums leave under the others'."""
    before, after = ring_axes(matmul.gathered), ring_axes(matmul.scattered)
    if not before:
        x = lax.optimization_barrier(all_gather(x, matmul.gathered, 1))
    ring, shard = ring_of(plan), x.shape[1]
    whole: list[Array] = []

    def partial(columns: slice) -> Array:
        if whole:
            return dequantize(product(plan, MATMUL, whole[0], w.block(slice(None), columns), jnp.float32), scale)
        out, parts = None, []
        for part in ring.arrivals(plan, x, before, 1):
            start = part.block * shard + part.offset
            block = w.block(slice(start, start + part.values.shape[1]), columns)
            term = product(plan, MATMUL, part.values, block, jnp.float32)
            out = term if out is None else out + term
            parts.append((start, part.values))
        whole.append(joined(parts))
        assert out is not None
        return dequantize(out, scale)

    out = ring.sums(plan, partial, after, w.stack.shape[2], kind)
    return out if after else reduce_scatter(out, matmul.scattered, 1)


def _ring_of_weights(plan: Plan, matmul: Matmul, x: Array, w: Array) -> Array:
    """Shards of w come around, columns in the outer ring and rows in the inner one; float32."""
    rows, columns = w.shape
    ring, blocks = ring_of(plan), []
    for column_part in ring.arrivals(plan, w, matmul.produced, 1):
        out = None
        for part in ring.arrivals(plan, column_part.values, matmul.contracted, 0):
            source = (axis_index(matmul.contracted) + part.block) % plan.axes.size(matmul.contracted)
            start = source * rows + part.offset
            mine = lax.dynamic_slice_in_dim(x, start, part.values.shape[0], axis=1)
            term = product(plan, MATMUL, mine, part.values, jnp.float32)
            out = term if out is None else out + term
        blocks.append((column_part.block * columns + column_part.offset, out))
    whole = joined([(start, block) for start, block in blocks if block is not None])
    return jnp.roll(whole, axis_index(matmul.produced) * columns, 1) if matmul.produced else whole
