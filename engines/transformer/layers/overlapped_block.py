"""A parallel block whose collectives run under the matmuls of its other half.

Attention and feed-forward read the same norm, so each one's matmuls hide the other's collectives:

=================================  ==========================================================
matmul                             collective that runs under it
=================================  ==========================================================
columns of q, k and v              (their reduce-scatter runs alone afterwards: it is small)
first matrix of the feed-forward   attention's all-to-all
second matrix, if there is one     reduce-scatter of the first one's columns
attention                          reduce-scatter of the last one's columns
attention's output                 all-gather of the hidden columns, where output matrices are two
=================================  ==========================================================

A ring (:mod:`comm.collective_matmul`) hides a collective under pieces of its own matmul, which fill the MXU worse. Here
matmuls stay whole, and each reads a whole matrix of its own: columns cut out of a fused one would be copied. Barriers
fix the order: a compiler left to itself starts a collective too late. Outputs are one matrix for a batch of few
sequences, since reading two takes longer than the collective that one of them would hide.
"""

from functools import reduce
from operator import add
from typing import Final

import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh

from engines.transformer.comm.collective_matmul import MATMUL, matmul_out, project
from engines.transformer.comm.collectives import all_gather, exchange, in_shards, local_shard, reduce_scatter
from engines.transformer.layers.attention import Where, attend_cached, from_batch, q_and_kv, to_batch
from engines.transformer.layers.kv_cache import Cache
from engines.transformer.layers.mlp import activate
from engines.transformer.layers.norm import norm
from engines.transformer.layers.projections import column_vectors, local_columns, local_embed, project_out
from engines.transformer.params.fusion import output_parts
from engines.transformer.params.memory_layout import LANES, on_tpu
from engines.transformer.params.quantize import dequantize, product, quantize_tokens
from engines.transformer.params.tree import LayerParameters, Matrix
from engines.transformer.partition.overlap import Overlap
from engines.transformer.partition.plan import Plan

GATHER: Final = "xla_enable_async_all_gather"
ALL_TO_ALL: Final = "xla_tpu_enable_async_all_to_all"


def compiler_options(plan: Plan, mesh: Mesh) -> dict[str, bool]:
    """What the compiler of ``mesh`` has to be told: left to itself, a TPU's waits for each of these collectives."""
    if plan.overlap is not Overlap.OVERLAPPED_BLOCK or not on_tpu(mesh):
        return {}
    limit = plan.overlapped_all_to_all_chips
    return {GATHER: True, ALL_TO_ALL: limit is None or mesh.size <= limit}


def overlapped_block(plan: Plan, w: LayerParameters, x: Array, cache: Cache, where: Where) -> tuple[Array, Cache]:
    """One layer, as :func:`engines.transformer.layers.block.layer` has it."""
    names = plan.model.ffn.inputs
    whole, scale = _normed(plan, w, x)

    def inputs(name: str) -> Matrix:
        matrix = w.projection(name).inputs
        assert isinstance(matrix, Matrix)
        return matrix

    def made(name: str, whole: Array) -> Array:
        kind = x.dtype if scale is None else jnp.float32
        out = dequantize(product(plan, MATMUL, whole, inputs(name).values.whole(), kind), scale)
        return in_shards(out.astype(x.dtype), plan.axes.embed, 1)

    def columns(name: str, terms: Array) -> Array:
        """Terms [terms, tokens, columns] → their sum, [tokens, chunks.column_axes, width]."""
        # One by one, so that the additions go into what reads the sum.
        out = reduce(add, (terms[each].astype(jnp.float32) for each in range(len(terms))))
        out = out.reshape(len(out), plan.local_chunks, -1)
        for vector, combine in column_vectors(inputs(name)):
            out = combine(out, local_columns(plan, vector))
        return out.astype(x.dtype)

    def by_time(qkv: Array) -> Array:
        return qkv.reshape(-1, where.time, *qkv.shape[1:])

    under_way = exchange(made("attn", whole), plan.axes.embed)
    if plan.axes.attention:
        whole, qkv = lax.optimization_barrier((whole, columns("attn", under_way)))
        under_way = to_batch(plan, by_time(qkv))
    arrived: list[Array] = []
    for name in names:
        # What was under way has arrived once this product is made, and this one's columns are sent beside the next.
        whole, block, *arrived = lax.optimization_barrier((whole, made(name, whole), *arrived, under_way))
        under_way = exchange(block, plan.axes.embed)
    qkv = arrived[0] if plan.axes.attention else by_time(columns("attn", arrived[0]))
    attended, cache = attend_cached(plan, q_and_kv(plan, qkv), cache, where)
    attended, under_way = lax.optimization_barrier((attended, under_way))
    hidden = [columns(name, terms) for name, terms in zip(names, [*arrived[1:], under_way], strict=True)]
    attended = from_batch(plan, attended)
    return x + _outputs(plan, w, [attended.reshape(-1, *attended.shape[2:]), activate(plan, hidden)]), cache


def _normed(plan: Plan, w: LayerParameters, x: Array) -> tuple[Array, Array | None]:
    """x: [tokens, E.residual] → its norm [tokens, E.embed], and the scales of :func:`quantize_tokens`.

    Few tokens are gathered first: all chips then take the same norm, but its sums come from one axis and not from all.
    """
    axes = plan.axes
    if len(x) < LANES:
        raw = lax.optimization_barrier(all_gather(x, axes.ffn, 1))
        normed, scale = quantize_tokens(plan, norm(plan, w.attn_norm, raw, axes.embed), ())
    else:
        normed, scale = quantize_tokens(plan, norm(plan, w.attn_norm, x), axes.ffn)
        normed = all_gather(normed, axes.ffn, 1)
    return lax.optimization_barrier(normed), scale


def _outputs(plan: Plan, w: LayerParameters, parts: list[Array]) -> Array:
    """What q attended to and the hidden columns, [tokens, chunks, width] each → [tokens, E.residual]."""
    axes, matrices = plan.axes, [w.projection(name).outputs for name in output_parts(plan)]
    if len(matrices) == 1:
        return project_out(plan, matrices[0], parts)
    terms = []
    for matrix, part in zip(matrices, parts, strict=True):
        matmul = matmul_out(plan)._replace(scattered=())
        out = project(plan, matmul, part.reshape(len(part), -1), matrix.values, jnp.float32)
        if matrix.scale is not None:
            out = out * local_shard(matrix.scale, axes.embed, 0, axes.size(axes.embed))
        terms.append(out)
    summed = reduce_scatter(sum(terms[1:], terms[0]).astype(parts[0].dtype), axes.ffn, 1)
    for matrix in matrices:
        if matrix.bias is not None:
            summed = (summed + local_embed(plan, matrix.bias)).astype(summed.dtype)
    return summed
