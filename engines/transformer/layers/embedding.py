"""Token ids → the residual stream, and the residual stream → logits, with the vocabulary split over the chips."""

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.comm.collective_matmul import few_rows
from engines.transformer.comm.collectives import all_gather, axis_index, local_shard, reduce_scatter
from engines.transformer.layers.norm import norm
from engines.transformer.layers.positions import Positions
from engines.transformer.params.quantize import dequantize, quantize_tokens, stream_dtype
from engines.transformer.params.tree import Parameters
from engines.transformer.partition.constraint import constrain, residual
from engines.transformer.partition.plan import Plan


def embed(plan: Plan, parameters: Parameters, tokens: Array, positions: Positions) -> Array:
    """tokens: [batch, time] on every chip → x: [tokens.batch, E.residual].

    Each chip looks up the ids in its part of the vocabulary, with zeros for others; a reduce-scatter sums them.
    """
    axes, matrix = plan.axes, parameters.embedding
    dtype = jnp.dtype(stream_dtype(plan))
    tokens = local_shard(tokens, axes.batch, 0, axes.size(axes.batch))
    row_axes, column_axes = axes.gathered
    table = all_gather(all_gather(matrix.values, row_axes, 1), column_axes, 0)
    local = tokens - axis_index(axes.ffn) * table.shape[0]
    held = (local >= 0) & (local < table.shape[0])
    rows = jnp.where(held[..., None], table[jnp.where(held, local, 0)].astype(dtype), 0)
    x = reduce_scatter(rows, axes.scattered, 2)
    x = lax.psum(x, axes.summed) if axes.summed else x
    if matrix.scale is not None:
        x = (x * matrix.scale[tokens][..., None]).astype(dtype)
    if plan.model.embedding_scale != 1:
        x = (x * plan.model.embedding_scale).astype(dtype)
    if parameters.positions is not None:
        here = positions.shard(plan, axes.batch).rows(parameters.positions, tokens.shape[1])
        x = x + local_shard(here, axes.residual, here.ndim - 1, axes.size(axes.residual)).astype(dtype)
    x = constrain(plan, x.reshape(-1, x.shape[-1]), residual)
    return x if parameters.embedding_norm is None else norm(plan, parameters.embedding_norm, x)


def logits(plan: Plan, parameters: Parameters, x: Array) -> Array:
    """x: [batch.batch, E.residual] → [batch, vocab.all], float32, padding at −inf.

    The matrix is used as stored in every layout: sending one token a sequence is less than gathering the matrix.
    """
    axes, matrix = plan.axes, parameters.output
    x = all_gather(all_gather(x, axes.scattered, 1), axes.batch, 0)
    rows, _ = axes.gathered
    x = local_shard(x, rows, 1, axes.size(rows))
    x, scale = quantize_tokens(plan, x, ()) if matrix.values.dtype == jnp.int8 else (x, None)
    out = dequantize(few_rows(plan, "be,ve->bv", x, matrix.values, jnp.float32), scale)
    out = reduce_scatter(out, axes.stored_embed, 1)
    if matrix.scale is not None:
        out = out * local_shard(matrix.scale, axes.all, 0, plan.chips)
    if matrix.bias is not None:
        out = out + local_shard(matrix.bias, axes.all, 0, plan.chips)
    model = plan.model
    if model.logit_scale != 1:
        out = out * model.logit_scale
    if model.logit_softcap is not None:
        out = model.logit_softcap * jnp.tanh(out / model.logit_softcap)
    out = jnp.where(vocab_ids(plan) < plan.model.vocab_size, out, -jnp.inf)
    return constrain(plan, out, lambda cut: ((), cut.axes.all))


def vocab_ids(plan: Plan) -> Array:
    """The ids of this chip's shard of the vocabulary: [vocab.all]."""
    size = plan.padded.vocab // plan.axes.size(plan.axes.all)
    ids: Array = axis_index(plan.axes.all) * size + jnp.arange(size, dtype=jnp.int32)
    return ids
