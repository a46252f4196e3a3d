"""Token ids to logits, inside ``shard_map``."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from engines.transformer.comm.collective_matmul import Stored
from engines.transformer.comm.collectives import (
    all_gather,
    axis_index,
    constrain,
    dequantize,
    local_shard,
    product,
    quantize_tokens,
    reduce_scatter,
)
from engines.transformer.generate.sampling import vocab_ids
from engines.transformer.layers.attention import Where
from engines.transformer.layers.block import layer
from engines.transformer.layers.kv_cache import Cache
from engines.transformer.layers.packing import Packing
from engines.transformer.layers.projections import RESIDUAL, Weights, matmuls, norm
from engines.transformer.layers.rope import turn_at
from engines.transformer.params.quantize import stream_dtype
from engines.transformer.partition.plan import Plan

LAYER = "layer."


def forward(plan: Plan, w: Weights, cache: Cache, tokens: Array, position: Any, *, limit: int) -> tuple[Array, Cache]:
    """Logits [batch, vocab.all_axes] (float32) of the last of ``tokens`` [batch, time], and the cache with all of them.

    Every chip gets all token ids. ``limit`` is the number of cached positions that can matter (static).
    """
    x, cache = states(plan, w, cache, tokens, position, limit=limit)
    return logits(plan, w, norm(plan, w, "final_norm", constrain(plan, x[:, -1], *RESIDUAL))), cache


def states(plan: Plan, w: Weights, cache: Cache, tokens: Array, position: Any, *, limit: int) -> tuple[Array, Cache]:
    """What leaves the last layer, [batch.batch_axes, time, embed.residual_axes], and the cache, as :func:`forward`.

    ``tokens`` may also be rows of packed sequences, and ``position`` then their :class:`Packing`.
    """
    time, packed = tokens.shape[1], isinstance(position, Packing)
    here = position.part(plan, plan.sequence_axes).positions if packed else position + jnp.arange(time)
    x = embed(plan, w, tokens, position)
    turn = turn_at(plan.model, here)
    stacked = {name.removeprefix(LAYER): each for name, each in w.items() if name.startswith(LAYER)}
    # Matrices are not scanned: each product slices what it reads from the stack itself.
    matrices = {name.removeprefix(LAYER): stacked.pop(name.removeprefix(LAYER)) for name in matmuls(plan)}

    def step(carry: tuple[Array, Cache], scanned: tuple[Any, Weights]) -> tuple[tuple[Array, Cache], None]:
        number, vectors = scanned
        stored = {name: Stored(each, number) for name, each in matrices.items()}
        return layer(plan, {**vectors, **stored}, *carry, Where(number, position, limit, time, turn)), None

    (x, cache), _ = lax.scan(step, (x, cache), (jnp.arange(plan.model.num_layers), stacked))
    return x.reshape(-1, time, x.shape[-1]), cache


def embed(plan: Plan, w: Weights, tokens: Array, position: Any) -> Array:
    """tokens: [batch, time] on every chip → x: [tokens.batch_axes, embed.residual_axes].

    Each chip looks up the ids in its part of the vocabulary; the rest is zeros, and a reduce-scatter adds up.
    """
    dtype = jnp.dtype(stream_dtype(plan))
    tokens = local_shard(tokens, plan.batch_axes, 0, plan.size(plan.batch_axes))
    rows_axes, column_axes = plan.gathered_axes
    table = all_gather(all_gather(w["embedding"], rows_axes, 1), column_axes, 0)
    local = tokens - axis_index(plan.ffn_axes) * table.shape[0]
    held = (local >= 0) & (local < table.shape[0])
    rows = jnp.where(held[..., None], table[jnp.where(held, local, 0)].astype(dtype), 0)
    x = reduce_scatter(rows, plan.ffn_axes, 2)
    if "embedding_scale" in w:
        x = (x * w["embedding_scale"][tokens][..., None]).astype(dtype)
    if plan.model.position == "learned":
        shards = plan.size(plan.residual_axes)
        if isinstance(position, Packing):
            here = w["positions"][position.part(plan, plan.batch_axes).positions]
        else:
            here = lax.dynamic_slice_in_dim(w["positions"], position, tokens.shape[1])
        x = x + local_shard(here, plan.residual_axes, here.ndim - 1, shards).astype(dtype)
    return constrain(plan, x.reshape(-1, x.shape[-1]), *RESIDUAL)


def logits(plan: Plan, w: Weights, x: Array) -> Array:
    """x: [batch.batch_axes, embed.residual_axes] → [batch, vocab.all_axes], float32, padding at −inf.

    With the matrix as it is stored, whatever the layout: one token a sequence is less to move than the vocabulary.
    """
    name = "embedding" if plan.model.tied_embedding else "lm_head"
    x = all_gather(all_gather(x, plan.ffn_axes, 1), plan.batch_axes, 0)
    if plan.batch_axes:
        x = local_shard(x, plan.stored_embed_axes, 1, plan.size(plan.stored_embed_axes))
    x, scale = quantize_tokens(plan, x, ())
    out = dequantize(product(plan, "be,ve->bv", x, w[name], jnp.float32), scale)
    out = reduce_scatter(out, plan.stored_embed_axes, 1)
    if f"{name}_scale" in w:
        out = out * local_shard(w[f"{name}_scale"], plan.all_axes, 0, plan.chips)
    if "lm_head_bias" in w:
        out = out + local_shard(w["lm_head_bias"], plan.all_axes, 0, plan.chips)
    out = jnp.where(vocab_ids(plan) < plan.model.vocab_size, out, -jnp.inf)
    return constrain(plan, out, "", "all_axes")
