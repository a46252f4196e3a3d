"""A parallel block in which what one product made is sent beside the next.

Attention and feed-forward read the same norm, so each one's products hide the other's collectives:

=================================  ==========================================================
computes                           beside it goes
=================================  ==========================================================
columns of q, k and v              (their sums, then, alone: they are few)
first matrix of the feed-forward   attention's all-to-all
second matrix, if there is one     sums of the first one's columns
attention                          sums of the last one's columns
attention's output                 gather of the hidden columns, where output matrices are two
=================================  ==========================================================

A looped product (``comm.collective_matmul``) hides a collective beside pieces of its own product, which fill the
matrix unit worse. Here products stay whole, and are whole matrices of their own: columns cut out of a fused one would
be copied. Barriers say what goes beside what: a compiler left to itself starts a collective too late. Outputs are one
matrix for a batch of few sequences, since reading two takes longer than what goes beside one of them.
"""

from dataclasses import replace
from functools import reduce
from operator import add
from typing import Final

import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh

from engines.transformer.comm.collective_matmul import MATMUL, project
from engines.transformer.comm.collectives import (
    all_gather,
    dequantize,
    exchange,
    in_shards,
    local_shard,
    product,
    quantize_tokens,
    reduce_scatter,
)
from engines.transformer.layers.attention import Where, attend_cached, from_batch, q_and_kv, to_batch
from engines.transformer.layers.kv_cache import Cache
from engines.transformer.layers.projections import (
    LayerWeights,
    activate,
    column_vectors,
    matmul_out,
    norm,
    own_columns,
    own_embed,
    project_out,
)
from engines.transformer.params.fusion import output_parts
from engines.transformer.params.memory_layout import LANES, on_tpu
from engines.transformer.partition.plan import Plan
from engines.weights.random import input_names

GATHER: Final = "xla_enable_async_all_gather"
ALL_TO_ALL: Final = "xla_tpu_enable_async_all_to_all"
LARGEST_SLICE: Final = {"TPU v5 lite": 16}
"""Kind of device → chips beyond which its compiler refuses an all-to-all beside something else."""


def compiler_options(plan: Plan, mesh: Mesh) -> dict[str, bool]:
    """What the compiler of ``mesh`` has to be told: left to itself, a TPU's waits for each of these collectives."""
    if not plan.interleaves or not on_tpu(mesh):
        return {}
    limit = LARGEST_SLICE.get(mesh.devices.flat[0].device_kind, mesh.size)
    return {GATHER: True, ALL_TO_ALL: mesh.size <= limit}


def interleaved(plan: Plan, w: LayerWeights, x: Array, cache: Cache, where: Where) -> tuple[Array, Cache]:
    """One layer, as :func:`engines.transformer.layers.block.layer` has it."""
    names = input_names(plan.model)
    whole, scale = _normed(plan, w, x)

    def made(name: str, whole: Array) -> Array:
        kind = x.dtype if scale is None else jnp.float32
        out = dequantize(product(plan, MATMUL, whole, w[f"{name}.in"].whole(), kind), scale)
        return in_shards(out.astype(x.dtype), plan.embed_axes, 1)

    def columns(name: str, terms: Array) -> Array:
        """Terms [terms, tokens, columns] → their sum, [tokens, chunks.column_axes, width]."""
        # One by one, so that the additions go into what reads the sum.
        out = reduce(add, (terms[each].astype(jnp.float32) for each in range(len(terms))))
        out = out.reshape(len(out), plan.local_chunks, -1)
        for vector, combine in column_vectors(w, name):
            out = combine(out, own_columns(plan, w[vector]))
        return out.astype(x.dtype)

    def by_time(qkv: Array) -> Array:
        return qkv.reshape(-1, where.time, *qkv.shape[1:])

    under_way = exchange(made("attn", whole), plan.embed_axes)
    if plan.attention_axes:
        whole, qkv = lax.optimization_barrier((whole, columns("attn", under_way)))
        under_way = to_batch(plan, by_time(qkv))
    arrived: list[Array] = []
    for name in names:
        # What was under way has arrived once this product is made, and this one's columns are sent beside the next.
        whole, block, *arrived = lax.optimization_barrier((whole, made(name, whole), *arrived, under_way))
        under_way = exchange(block, plan.embed_axes)
    qkv = arrived[0] if plan.attention_axes else by_time(columns("attn", arrived[0]))
    attended, cache = attend_cached(plan, q_and_kv(plan, qkv), cache, where)
    attended, under_way = lax.optimization_barrier((attended, under_way))
    hidden = [columns(name, terms) for name, terms in zip(names, [*arrived[1:], under_way], strict=True)]
    attended = from_batch(plan, attended)
    return x + _outputs(plan, w, [attended.reshape(-1, *attended.shape[2:]), activate(plan, hidden)]), cache


def _normed(plan: Plan, w: LayerWeights, x: Array) -> tuple[Array, Array | None]:
    """x: [tokens, embed.residual_axes] → its norm [tokens, E.embed_axes], and the scales of :func:`quantize_tokens`.

    Few tokens are gathered first: all chips then take the same norm, but its sums come from one axis and not from all.
    """
    if len(x) < LANES:
        raw = lax.optimization_barrier(all_gather(x, plan.ffn_axes, 1))
        normed, scale = quantize_tokens(plan, norm(plan, w, "attn_norm", raw, plan.embed_axes), ())
    else:
        normed, scale = quantize_tokens(plan, norm(plan, w, "attn_norm", x), plan.ffn_axes)
        normed = all_gather(normed, plan.ffn_axes, 1)
    return lax.optimization_barrier(normed), scale


def _outputs(plan: Plan, w: LayerWeights, parts: list[Array]) -> Array:
    """What q attended to and the hidden columns, [tokens, chunks, width] each → [tokens, embed.residual_axes]."""
    plain = replace(plan, collectives="plain")
    names = list(output_parts(plan))
    if len(names) == 1:
        return project_out(plain, w, names[0], parts)
    terms = []
    for name, part in zip(names, parts, strict=True):
        matmul = matmul_out(plan)._replace(scattered=())
        out = project(plain, matmul, part.reshape(len(part), -1), w[f"{name}.out"], jnp.float32)
        if f"{name}.out_scale" in w:
            out = out * local_shard(w[f"{name}.out_scale"], plan.embed_axes, 0, plan.size(plan.embed_axes))
        terms.append(out)
    summed = reduce_scatter(sum(terms[1:], terms[0]).astype(parts[0].dtype), plan.ffn_axes, 1)
    for name in names:
        if f"{name}.out_bias" in w:
            summed = (summed + own_embed(plan, w[f"{name}.out_bias"])).astype(summed.dtype)
    return summed
