"""A parallel block in which each half's collectives overlap the other half's matmuls.

Attention and feed-forward read the same norm, so the matmuls of each can hide the collectives of the other:

=================================  ==========================================================
matmul                             collective that overlaps it
=================================  ==========================================================
columns of q, k and v              (their small reduce-scatter is exposed afterwards)
first matrix of the feed-forward   attention's all-to-all
second matrix, if there is one     reduce-scatter of the first matrix's columns
attention                          reduce-scatter of the last matrix's columns
attention's output                 all-gather of the hidden columns, if there are two output matrices
=================================  ==========================================================

A ring (:mod:`comm.collective_matmul`) hides a collective under parts of its own matmul, which utilize the MXU less
well. Here matmuls are not split, and each reads a matrix of its own: columns of a fused matrix would be copied.
Barriers fix the order: without them the compiler starts a collective too late. With few sequences both outputs are one
matrix, since reading two takes longer than the collective that one of them would hide.
"""

from functools import reduce
from operator import add
from typing import Final

import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh

from engines.transformer.comm.collective_matmul import MATMUL, matmul_out, project
from engines.transformer.comm.collectives import all_gather, all_to_all_terms, local_shard, reduce_scatter, shards_first
from engines.transformer.layers.attention import LayerContext, attend_cached, from_batch, q_and_kv, to_batch
from engines.transformer.layers.kv_cache import Cache
from engines.transformer.layers.mlp import activate
from engines.transformer.layers.norm import norm
from engines.transformer.layers.projections import column_vectors, local_columns, local_embed, project_out
from engines.transformer.params.fusion import output_parts
from engines.transformer.params.memory_layout import LANES, on_tpu
from engines.transformer.params.quantize import dequantize, einsum, quantize_tokens
from engines.transformer.params.tree import LayerParameters, Matrix
from engines.transformer.partition.overlap import Overlap
from engines.transformer.partition.plan import Plan

ASYNC_ALL_GATHER: Final = "xla_enable_async_all_gather"
ASYNC_ALL_TO_ALL: Final = "xla_tpu_enable_async_all_to_all"


def compiler_options(plan: Plan, mesh: Mesh) -> dict[str, bool]:
    """XLA options for a mesh of TPUs, whose compiler makes these collectives synchronous by default; {} for others."""
    if plan.overlap is not Overlap.OVERLAPPED_BLOCK or not on_tpu(mesh):
        return {}
    limit = plan.overlapped_all_to_all_chips
    return {ASYNC_ALL_GATHER: True, ASYNC_ALL_TO_ALL: limit is None or mesh.size <= limit}


def overlapped_block(
    plan: Plan, w: LayerParameters, x: Array, cache: Cache, context: LayerContext
) -> tuple[Array, Cache]:
    """One layer: see :func:`engines.transformer.layers.block.layer`."""
    names = plan.model.ffn.inputs
    whole, scale = _normed(plan, w, x)

    def inputs(name: str) -> Matrix:
        matrix = w.projection(name).inputs
        assert isinstance(matrix, Matrix)
        return matrix

    def columns_of(name: str, whole: Array) -> Array:
        kind = x.dtype if scale is None else jnp.float32
        out = dequantize(einsum(plan, MATMUL, whole, inputs(name).values.whole(), kind), scale)
        return shards_first(out.astype(x.dtype), plan.axes.embed, 1)

    def columns(name: str, terms: Array) -> Array:
        """Terms [terms, tokens, columns] → their sum, [tokens, chunks.column_axes, width]."""
        # Term by term, so that the additions are fused into the consumer of the sum.
        out = reduce(add, (terms[each].astype(jnp.float32) for each in range(len(terms))))
        out = out.reshape(len(out), plan.local_chunks, -1)
        for vector, combine in column_vectors(inputs(name)):
            out = combine(out, local_columns(plan, vector))
        return out.astype(x.dtype)

    def by_time(qkv: Array) -> Array:
        return qkv.reshape(-1, context.time, *qkv.shape[1:])

    in_flight = all_to_all_terms(columns_of("attn", whole), plan.axes.embed)
    if plan.axes.attention:
        whole, qkv = lax.optimization_barrier((whole, columns("attn", in_flight)))
        in_flight = to_batch(plan, by_time(qkv))
    arrived: list[Array] = []
    for name in names:
        # The barrier ends the collective in flight with this matmul; this matmul's columns are sent during the next.
        whole, block, *arrived = lax.optimization_barrier((whole, columns_of(name, whole), *arrived, in_flight))
        in_flight = all_to_all_terms(block, plan.axes.embed)
    qkv = arrived[0] if plan.axes.attention else by_time(columns("attn", arrived[0]))
    attended, cache = attend_cached(plan, q_and_kv(plan, qkv), cache, context)
    attended, in_flight = lax.optimization_barrier((attended, in_flight))
    hidden = [columns(name, terms) for name, terms in zip(names, [*arrived[1:], in_flight], strict=True)]
    attended = from_batch(plan, attended)
    return x + _outputs(plan, w, [attended.reshape(-1, *attended.shape[2:]), activate(plan, hidden)]), cache


def _normed(plan: Plan, w: LayerParameters, x: Array) -> tuple[Array, Array | None]:
    """x: [tokens, E.residual] → its norm [tokens, E.embed], and the scales of :func:`quantize_tokens`.

    Few tokens are gathered before the norm: chips repeat its work, but its sums span fewer axes.
    """
    assert w.attn_norm is not None
    axes = plan.axes
    if len(x) < LANES:
        raw = lax.optimization_barrier(all_gather(x, axes.ffn, 1))
        normed, scale = quantize_tokens(plan, norm(plan, w.attn_norm, raw, axes.embed), ())
    else:
        normed, scale = quantize_tokens(plan, norm(plan, w.attn_norm, x), axes.ffn)
        normed = all_gather(normed, axes.ffn, 1)
    return lax.optimization_barrier(normed), scale


def _outputs(plan: Plan, w: LayerParameters, parts: list[Array]) -> Array:
    """Attention output and hidden columns, [tokens, chunks, width] each → [tokens, E.residual]."""
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
